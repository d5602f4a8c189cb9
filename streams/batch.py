"""A batch of records and the ledger of batches in flight: what may be committed, and no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from faust.types import TP


class Record(Protocol):
    """What a consumed record offers; aiokafka's ``ConsumerRecord`` fits."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Batch:
    """The records of one partition that came with one fetch, in offset order.

    Its offsets become committable when `ack` was called on it and on every batch
    delivered before it. A batch that is never acknowledged is never committed, and
    neither is anything after it: whoever takes batches must acknowledge each of them.
    """

    __slots__ = (
        "_ledger",
        "acked",
        "ahead",
        "first_offset",
        "last_offset",
        "records",
        "released",
        "taken",
        "tp",
        "void",
    )

    def __init__(self, tp: TP, records: Sequence[Any], ledger: Ledger) -> None:
        self.tp = tp
        self.records = records
        self.first_offset: int = records[0].offset
        self.last_offset: int = records[-1].offset
        self.ahead: Any = None  # what was begun of it beside the event loop
        self.taken = False  # an agent has got it
        self.released = False
        self.acked = False
        self.void = False  # its partition was sought or revoked: whoever owns it reads this again
        self._ledger = ledger

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Batch {self.tp.topic}[{self.tp.partition}]@{self.first_offset}..{self.last_offset}>"

    def release(self) -> None:
        """Let go of the records: they are not needed any more, and others may be fetched. Idempotent."""
        if not self.released:
            self.released = True
            self.records = ()
            self.ahead = None
            self._ledger.on_release(self)

    def ack(self) -> None:
        """Say that everything this batch led to is durable. Idempotent; it releases, too."""
        if not self.acked:
            self.acked = True
            self.release()
            self._ledger.on_ack(self)


class Ledger:
    """The batches in flight of every partition, oldest first: waiting, then released, then acknowledged.

    Of each partition, `max_waiting` batches may wait to be worked on; what is released costs no
    room, so that it is the worker's own queues that hold it back. Batches are known by identity, not
    by offset: after a seek the ledger forgets them, so a late `Batch.ack` of a batch that was fetched
    before the seek cannot vouch for its successor.
    """

    def __init__(self, max_waiting: int = 4) -> None:
        self.max_waiting = max_waiting
        self.on_room: Any = None  # called without arguments when a full partition has room again
        self._in_flight: dict[TP, deque[Batch]] = {}
        self._waiting: dict[TP, set[Batch]] = {}
        self._committable: dict[TP, int] = {}

    def deliver(self, tp: TP, records: Sequence[Any]) -> Batch:
        """Enter a batch that is about to be handed to a stream."""
        batch = Batch(tp, records, self)
        self._in_flight.setdefault(tp, deque()).append(batch)
        self._waiting.setdefault(tp, set()).add(batch)
        return batch

    def on_release(self, batch: Batch) -> None:
        """Make room for another batch."""
        waiting = self._waiting.get(batch.tp, set())
        was_full = len(waiting) >= self.max_waiting
        waiting.discard(batch)
        if was_full and len(waiting) < self.max_waiting and self.on_room is not None:
            self.on_room()

    def on_ack(self, batch: Batch) -> None:
        """Advance past the acknowledged head of the partition."""
        queue = self._in_flight.get(batch.tp)
        while queue and queue[0].acked:
            self._committable[batch.tp] = queue.popleft().last_offset + 1

    def has_room(self, tp: TP) -> bool:
        """Whether another batch of this partition may be fetched. Safe from another thread."""
        return len(self._waiting.get(tp, ())) < self.max_waiting

    def in_flight(self, tp: TP) -> int:
        """The number of batches delivered and not yet acknowledged (or behind one that is not)."""
        return len(self._in_flight.get(tp, ()))

    def oldest(self, tp: TP) -> int | None:
        """The first offset that is in flight; None where nothing is."""
        queue = self._in_flight.get(tp)
        return queue[0].first_offset if queue else None

    def idle(self) -> bool:
        """Whether nothing at all is in flight."""
        return not any(self._in_flight.values())

    def committable(self, tp: TP) -> int | None:
        """The offset to commit: one past the last record of the acknowledged prefix."""
        return self._committable.get(tp)

    def partitions(self) -> list[TP]:
        """The partitions for which something may be committed."""
        return list(self._committable)

    def forget(self, tps: Iterable[TP] | None = None) -> None:
        """Drop all that is known of these partitions, or of all: they were sought or revoked."""
        known = {*self._in_flight, *self._committable}
        for tp in known if tps is None else tps:
            for batch in self._in_flight.pop(tp, ()):
                batch.void = True
            self._waiting.pop(tp, None)
            self._committable.pop(tp, None)

    def forget_untaken(self) -> None:
        """Drop the batches that no agent has got yet, and none ever will."""
        for tp, queue in self._in_flight.items():
            while queue and not queue[-1].taken:
                batch = queue.pop()
                batch.void = True
                self._waiting[tp].discard(batch)
