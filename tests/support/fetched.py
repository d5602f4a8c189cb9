"""Records as a consumer fetches them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.bars.types import Record


def record_batches(records: Sequence[Record], *, compression: int = 0) -> list[memoryview]:
    """They as a broker sends them: one batch, or more, as that of a record without a timestamp has no other.

    A timestamp that is None becomes -1, which is none, too.
    """
    batches: list[list[Record]] = []
    for record in records:
        known = record.timestamp not in {None, -1}
        if not known or not batches or batches[-1][-1].timestamp in {None, -1}:
            batches.append([])
        batches[-1].append(record)
    return [memoryview(_record_batch(batch, compression)) for batch in batches]


def _record_batch(records: Sequence[Record], compression: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 30)
    base = records[0].offset
    for record in records:
        timestamp = -1 if record.timestamp is None else record.timestamp
        builder.append(record.offset - base, timestamp, record.key, record.value, list(record.headers))
    return struct.pack(">q", base) + bytes(builder.build())[8:]
