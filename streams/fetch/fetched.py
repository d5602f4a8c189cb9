"""Records as they were fetched: their bytes, and where in them each has what. To import it is to compile."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, overload

import numpy as np
from aiokafka import codec

from schemas.codecs.spans import PAD, Ints, Spans
from schemas.replay import REPLAY_HEADER
from streams.bars.records import Records
from streams.bars.types import Record
from streams.fetch import find

#: A batch's head: its offset, attributes, the first and the latest timestamp, and how many records follow.
_HEAD: Final = struct.Struct(">q4x4x1x4xh4xqq8x2x4xi")
_DECOMPRESS: Final[dict[int, Any]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}
_COMPRESSION, _APPEND_TIME = 7, 8
_REPLAY: Final = REPLAY_HEADER.encode()
#: Bytes of a record with nothing in it: a length, attributes, two distances, two lengths and a number of headers.
_LEAST: Final = 7


class FetchedRecord(NamedTuple):
    """One of them."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Fetched(Records):
    """Records that become objects where one is asked for."""

    def __init__(self, data: bytes, table: Ints, *, may_be_replays: bool) -> None:
        self._data = data
        self._table = table
        self._may_be_replays = may_be_replays

    def __len__(self) -> int:
        return len(self._table[find.OFFSET])

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Fetched: ...
    def __getitem__(self, at: int | slice) -> Record | Fetched:
        found = self._table[:, at]
        if isinstance(at, slice):
            return Fetched(self._data, found, may_be_replays=self._may_be_replays)
        offset, timestamp, head, value, end = found.tolist()
        key, _ = _text(self._data, head)
        return FetchedRecord(  # type: ignore[return-value]
            offset,
            timestamp,
            key,
            None if value < 0 else self._data[value:end],
            tuple(_headers(self._data, end)),
        )

    @cached_property
    def offsets(self) -> list[int]:
        """See `Records`."""
        found: list[int] = self._table[find.OFFSET].tolist()
        return found

    @cached_property
    def timestamps(self) -> list[int | None]:
        """See `Records`."""
        found: list[int | None] = self._table[find.TIMESTAMP].tolist()
        return found

    @property
    def values(self) -> Spans:
        """See `Records`."""
        return Spans(self._data, self._table[find.VALUE], self._table[find.END])

    def heads(self, width: int) -> Iterator[bytes | None]:
        """See `Records`."""
        data, (_, _, _, begins, ends) = self._data, self._table.tolist()
        for begin, end in zip(begins, ends, strict=True):
            yield None if begin < 0 else data[begin : min(end, begin + width)]

    @property
    def may_be_replays(self) -> bool:
        """See `Records`."""
        return self._may_be_replays

    def earliest_ns(self) -> int | None:
        """See `Records`."""
        earliest_ms = int(self._table[find.TIMESTAMP].min()) if len(self) else -1
        return None if earliest_ms < 0 else earliest_ms * 1_000_000


def read(batches: Sequence[memoryview]) -> Fetched | None:
    """The records of whole batches of version 2; None where one cannot be read, or something is wrong in it."""
    parts: list[Any] = []
    columns = []
    at = 0
    for batch in batches:
        if len(batch) < _HEAD.size:
            return None
        base, attributes, first, latest, count = _HEAD.unpack_from(batch)
        data: Any = batch[_HEAD.size :]
        if compression := attributes & _COMPRESSION:
            try:
                data = _DECOMPRESS[compression](data.tobytes())
            except Exception:  # of each library its own; aiokafka's parser says what is wrong
                return None
        if not 0 <= count <= len(data) // _LEAST:
            return None
        parts.append(data)
        columns.append((at, at + len(data), count, base, first, latest if attributes & _APPEND_TIME else -1))
        at += len(data)
    table = np.empty((find.RECORD, sum([column[find.COUNT] for column in columns])), np.int64)
    data = b"".join((*parts, PAD))
    with_headers = find.find(np.frombuffer(data, np.uint8), np.array(columns, np.int64).T.copy(), table)
    if with_headers < 0:
        return None
    # Names stand in the bytes as they are: what is not found there none of them has.
    return Fetched(data, table, may_be_replays=with_headers > 0 and _REPLAY in data)


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _text(data: bytes, at: int) -> tuple[bytes | None, int]:
    width, at = _number(data, at)
    return (None, at) if width < 0 else (data[at : at + width], at + width)


def _headers(data: bytes, at: int) -> Iterator[tuple[str, bytes | None]]:
    count, at = _number(data, at)
    for _ in range(count):
        name, at = _text(data, at)
        value, at = _text(data, at)
        yield str(name, errors="backslashreplace"), value  # type: ignore[arg-type]  # no name is null: see `find`
