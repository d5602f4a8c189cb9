"""Where in the bytes of Kafka's record batches each record has what. Compiled.

The format is version 2: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.codecs.spans import Bytes, Ints
from schemas.compiled import BYTES, INT, TABLE, compiled, part

#: Rows of `batches`, a column for each: where its records begin and end, how many there are, the offset and the
#: timestamp that theirs are counted from, and the one that all of them have where the broker dates them, or -1.
BEGIN, UNTIL, COUNT, BASE, FIRST, APPENDED = range(6)
BATCH: Final = 6

#: Rows of `records`, a column for each. The head is what stands from its key's length on; a value that is null
#: begins at -1. Headers, and first their number, stand where the value ends.
OFFSET, TIMESTAMP, HEAD, VALUE, END = range(5)
RECORD: Final = 5

_MOST_BYTES: Final = 10  # of a 64-bit number
_BITS, _MORE, _ONE = np.uint64(0x7F), np.uint64(0x80), np.uint64(1)


@part
def _number(data: Bytes, at: int, until: int) -> tuple[int, int]:
    """A number of variable length, and where it ends; that is -1 where it does not."""
    value, shift = np.uint64(0), np.uint64(0)
    for i in range(at, min(until, at + _MOST_BYTES)):
        byte = np.uint64(data[i])
        if i - at == _MOST_BYTES - 1 and byte > _ONE:  # more than 64 bits
            break
        value |= (byte & _BITS) << shift
        if byte < _MORE:
            return np.int64(value >> _ONE) ^ -np.int64(value & _ONE), i + 1  # type: ignore[return-value]
        shift += np.uint64(7)
    return 0, -1


@part
def _text(data: Bytes, at: int, until: int) -> tuple[int, int]:
    """Where bytes begin that follow their length, or -1 for none, and where they end; -1 where they do not."""
    width, at = _number(data, at, until)
    if at < 0 or width < 0:
        return -1, at
    if width > until - at:
        return -1, -1
    return at, at + width


@compiled(INT, BYTES, TABLE, TABLE)
def find(data: Bytes, batches: Ints, records: Ints) -> int:
    """Find the records of batches that are not compressed; gives how many have headers, or -1.

    It is -1 where something is not as it should be: whoever reads them one by one finds out what.
    """
    number = with_headers = 0
    for b in range(batches.shape[1]):
        at, until = batches[BEGIN, b], batches[UNTIL, b]
        for _ in range(batches[COUNT, b]):
            length, at = _number(data, at, until)
            if at < 0 or not 0 < length <= until - at:
                return -1
            end = at + length
            if data[at] >= _MORE:  # attributes say nothing so far; not all take them for one byte
                return -1
            later, at = _number(data, at + 1, end)
            if at < 0:
                return -1
            further, head = _number(data, at, end)
            if head < 0:
                return -1
            _, at = _text(data, head, end)
            if at < 0:
                return -1
            begin, at = _text(data, at, end)
            if at < 0:
                return -1
            records[OFFSET, number] = batches[BASE, b] + further
            records[TIMESTAMP, number] = (
                batches[APPENDED, b] if batches[APPENDED, b] >= 0 else batches[FIRST, b] + later
            )
            records[HEAD, number] = head
            records[VALUE, number] = begin
            records[END, number] = at
            headers, at = _number(data, at, end)
            if at < 0 or headers < 0:
                return -1
            with_headers += headers > 0
            for _ in range(headers):
                name, at = _text(data, at, end)
                if at < 0 or name < 0:
                    return -1
                _, at = _text(data, at, end)
                if at < 0:
                    return -1
            if at != end:
                return -1
            number += 1
        if at != until:
            return -1
    return with_headers
