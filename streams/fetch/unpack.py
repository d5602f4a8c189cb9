"""Fetched bytes to records, all of a fetch at once.

aiokafka makes a `ConsumerRecord` of each record, in Python: that costs more than parsing it. What is here gives
records by the run instead: `Fetched`, or before that is loaded, and of what cannot be read so, those of aiokafka's
parser. All have `offset`, `timestamp`, `key`, `value` and `headers`; topic and partition the taker knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

_fetched: ModuleType | None = None
"""What reads a run at once, once it is there."""

_OVERHEAD = 12
"""Bytes of a batch up to its length, which it does not count."""
_MAGIC, _CURRENT = 16, 2
"""Where its version stands, and the one that `Fetched` reads."""


class Kept(MemoryRecords):  # type: ignore[misc]  # it is final for type checkers only
    """A fetch of one partition that tells its bytes: aiokafka's own keeps them to itself."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


# The fetcher makes them by this name, and offers no other way to have the bytes.
fetcher.MemoryRecords = Kept


def load() -> None:
    """Have runs read at once from now on. It compiles, and raises what numba raises: see `bars.intake.load`."""
    global _fetched
    _fetched = import_module("streams.fetch.fetched")


class Unpacked:
    """Takes the place of a `PartitionRecords` that nothing has been taken from yet. To iterate is to get runs."""

    def __init__(self, packed: PartitionRecords) -> None:
        # It holds the generator that holds it: what was fetched would be kept until somebody looks for cycles.
        packed._records_iterator = None
        self._packed = packed
        self._batches = _batches(packed)
        self._rest: Sequence[Any] = ()
        self.room: int | None = None
        """How many records a run may have; None is any number."""
        self.next_fetch_offset: int = packed.next_fetch_offset
        """Where the next fetch must begin."""

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return self

    def __next__(self) -> Sequence[Any]:
        run = self._rest or self._gather()
        if not run:
            self.next_fetch_offset = self._packed.next_fetch_offset
            raise StopIteration
        self._rest = () if self.room is None else run[self.room :]
        run = run[: self.room]
        self.next_fetch_offset = run[-1].offset + 1 if self._rest else self._packed.next_fetch_offset
        return run

    @property
    def is_empty(self) -> bool:
        """Whether all of it is known to have been given."""
        return not self._rest and not self._packed._records.has_next()

    def _gather(self) -> Sequence[Any]:
        """The records of as many whole batches as there is room for."""
        begin = self._packed.next_fetch_offset
        try:
            while True:
                batches: list[_Batch] = []
                for batch in self._batches:
                    batches.append(batch)
                    if self.room is not None and batch.parser.next_offset - begin >= self.room:
                        break
                # Of batches that were compacted there may be nothing left.
                if (run := _read(batches, begin)) or not batches:
                    return run
        except BaseException:
            # What came before it is fetched again: nothing of it was given.
            self._batches = iter(())
            self._packed.next_fetch_offset = begin
            raise


class _Batch(NamedTuple):
    """A batch of a producer's."""

    parser: Any
    data: memoryview | None
    """The whole of it, where that is known and of the version that can be read at once."""


def _read(batches: Sequence[_Batch], begin: int) -> Sequence[Any]:
    """The records of batches from an offset on. Raises what aiokafka's parser raises."""
    run = _at_once(batches) if _fetched is not None else None
    if run is None:
        try:
            return [record for batch in batches for record in batch.parser if record.offset >= begin]
        except UnicodeDecodeError:  # in the name of a header, which nobody may have asked for
            with suppress(ImportError):
                load()
                run = _at_once(batches)
            if run is None:
                raise
    return run.after(begin - 1) if run and run[0].offset < begin else run  # type: ignore[no-any-return]


def _at_once(batches: Sequence[_Batch]) -> Any:
    data = [batch.data for batch in batches]
    return _fetched.read(data) if _fetched is not None and data and None not in data else None


def _batches(packed: PartitionRecords) -> Iterator[_Batch]:
    # As PartitionRecords._unpack_records; see there for why each of these is as it is.
    records = packed._records
    data = memoryview(records.data) if isinstance(records, Kept) else None
    at = 0
    while records.has_next():
        batch = records.next_batch()
        if packed._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {packed._tp}")
        own = None
        if data is not None:
            begin, at = at, at + _OVERHEAD + int.from_bytes(data[at + 8 : at + _OVERHEAD], "big")
            own = data[begin:at] if data[begin + _MAGIC] == _CURRENT else None
        if packed._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            packed._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and packed._contains_abort_marker(batch):
                packed._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in packed._aborted_producers:
                packed.next_fetch_offset = max(packed.next_fetch_offset, batch.next_offset)
                continue
        packed.next_fetch_offset = max(packed.next_fetch_offset, batch.next_offset)
        if not batch.is_control_batch:
            yield _Batch(batch, own)


def unpack(result: Any) -> Unpacked | None:
    """Have this fetch give runs of records, if it is one, and nothing was taken of it otherwise."""
    if type(result) is not FetchResult:
        return None
    packed = result._partition_records
    if type(packed) is PartitionRecords:
        result._partition_records = packed = Unpacked(packed)
    return packed if isinstance(packed, Unpacked) else None
