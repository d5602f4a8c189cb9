"""What becomes of bars that find the store's queue full."""

from __future__ import annotations

from enum import StrEnum


class Overflow(StrEnum):
    """The policy of the queue. Under all of them its pressure goes to the tick partitions that feed it."""

    block = "block"
    """They wait in Kafka: nothing is lost, and the queue may hold one batch more than its capacity."""
    drop_oldest = "drop_oldest"
    """The first that came and are not being written make room. They are counted, and never written."""
    drop_newest = "drop_newest"
    """Those that do not fit are not taken. They are counted, and never written."""
    error = "error"
    """The worker stops where `block` would wait. Nothing is lost: they are read again."""
