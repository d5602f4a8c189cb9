"""What operators have paused: beside the pressure of the stores, and whatever these say."""

from __future__ import annotations

from collections.abc import Callable


class Holds:
    """Says who has paused a partition of one role; without a control topic nobody has."""

    def __init__(self) -> None:
        self.by: Callable[[int], str | None] = lambda partition: None
        """Who has paused a partition; None where it is not paused. From any thread."""
