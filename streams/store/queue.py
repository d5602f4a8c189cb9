"""The bounded queue before the store: batches of bars, oldest first, and which of them may be acknowledged.

Pure: it knows no database, no clock and no event loop. The `StoreWriter` fills and empties it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.bar import Bar
from schemas.errors import QueueFull
from streams.batch import Batch, Record
from streams.store.overflow import Overflow


class _Entry:
    """A batch, how many of its bars are neither settled nor dropped, and whose were dropped."""

    __slots__ = ("batch", "dropped", "failed", "given_up", "left", "number")

    def __init__(self, batch: Batch, left: int, number: int) -> None:
        self.batch = batch
        self.left = left
        self.number = number
        self.given_up = False
        self.failed = False
        self.dropped: Counter[str] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A bar in the queue, and the record that it came with."""

    entry: _Entry
    bar: Bar
    record: Record


class BarQueue:
    """Bars that wait, bars that are being written, and the batches that they came in.

    Contract: a batch comes out of `finished` once, in the order of `put`, when all its bars are settled or
    dropped, and so are those of all batches before it. Under a policy that drops, no more than `capacity`
    bars wait; what is being written is out of its reach and does not count. The policies that do not drop
    count both, and admit a batch, whatever its size, while there are fewer than `capacity`.
    """

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.capacity = capacity
        self.overflow = overflow
        self._entries: deque[_Entry] = deque()
        self._waiting: deque[Item] = deque()
        self._in_write = 0
        self._numbered = 0
        self.dropped_batches = 0
        """Batches that lost bars, but for those that are given up, as they come again."""

    def __len__(self) -> int:
        """Bars that wait or are being written."""
        return len(self._waiting) + self._in_write

    @property
    def idle(self) -> bool:
        """Whether every batch has come out of `finished`."""
        return not self._entries

    def admits(self, records: Sequence[Record]) -> bool:
        """Whether `put` may be called for these records of bars; raises QueueFull where it is not waited."""
        if self.overflow in (Overflow.drop_oldest, Overflow.drop_newest) or len(self) < self.capacity:
            return True
        if self.overflow is Overflow.error and records:
            first = records[0]
            raise QueueFull(
                f"the store's queue is full: it holds {len(self)} bars, its capacity is {self.capacity}, and "
                f"{first.topic}[{first.partition}]@{first.offset} does not fit",
                hint='the database takes fewer bars than come, and overflow = "error" says to stop. Nothing is '
                "lost: start again when it has caught up, raise queue_capacity, or wait for it with "
                'overflow = "block"',
            )
        return self.overflow is Overflow.error

    def put(self, batch: Batch, bars: Sequence[Bar], records: Sequence[Record]) -> list[Item]:
        """Append a batch that is admitted; gives the bars, of this batch or others, that were dropped for it."""
        self._numbered += 1
        entry = _Entry(batch, len(bars), self._numbered)
        self._entries.append(entry)
        self._waiting.extend(Item(entry, bar, record) for bar, record in zip(bars, records, strict=True))
        return [self._dropped(item) for item in self._excess()]

    def _excess(self) -> Iterator[Item]:
        """Take out what is too much, oldest first; of the newest it is a part of the batch that came last."""
        excess = max(0, len(self._waiting) - self.capacity)
        if self.overflow is Overflow.drop_oldest:
            for _ in range(excess):
                yield self._waiting.popleft()
        elif self.overflow is Overflow.drop_newest:
            yield from [self._waiting.pop() for _ in range(excess)][::-1]

    def _dropped(self, item: Item) -> Item:
        entry = item.entry
        entry.left -= 1
        if entry.dropped is None:
            entry.dropped = Counter()
            self.dropped_batches += 1
        entry.dropped[item.bar.instrument] += 1
        return item

    def take(self, most: int) -> list[Item]:
        """The oldest bars, to be written: they are in the queue until they are settled, and cannot be dropped."""
        items = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._in_write += len(items)
        return items

    def settle(self, item: Item) -> None:
        """A bar that was taken is committed, or is not going to be: the store has said what became of it."""
        item.entry.left -= 1
        if not item.entry.given_up:
            self._in_write -= 1

    def mark(self) -> int:
        """The number of the last batch there is."""
        return self._numbered

    def finished(self, mark: int) -> Iterator[Batch]:
        """Take out the oldest batches, up to `mark`, that have nothing left to be written."""
        while self._entries and self._entries[0].number <= mark and not self._entries[0].left:
            yield self._entries.popleft().batch

    def forget(self) -> Counter[str]:
        """Give up all batches, also of bars that are being written: they are neither finished nor dropped.

        Gives the bars that had been dropped of them, by instrument: they come again with their batch.
        """
        dropped: Counter[str] = Counter()
        for entry in self._entries:
            entry.given_up = True
            dropped.update(entry.dropped or {})
            self.dropped_batches -= entry.dropped is not None
        self._entries.clear()
        self._waiting.clear()
        self._in_write = 0
        return dropped
