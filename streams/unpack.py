"""Fetched bytes to records, a batch of the producer's at a time.

aiokafka makes a `ConsumerRecord` of each record, in Python: that costs more than parsing it. What its parser
gives has the same `offset`, `timestamp`, `key`, `value` and `headers`; topic and partition the taker knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException


class Unpacked:
    """Takes the place of a `PartitionRecords` that nothing has been taken from yet."""

    def __init__(self, packed: PartitionRecords) -> None:
        # It holds the generator that holds it: what was fetched would be kept until somebody looks for cycles.
        packed._records_iterator = None
        self._packed = packed
        self._records = chain.from_iterable(_batches(packed))

    @property
    def next_fetch_offset(self) -> int:
        """Where the next fetch must begin; within a batch, at its start."""
        offset: int = self._packed.next_fetch_offset
        return offset

    def __iter__(self) -> Iterator[Any]:
        return self._records


def _batches(packed: PartitionRecords) -> Iterator[list[Any]]:
    # As PartitionRecords._unpack_records; see there for why each of these is as it is.
    records = packed._records
    while records.has_next():
        batch = records.next_batch()
        if packed._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {packed._tp}")
        if packed._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            packed._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and packed._contains_abort_marker(batch):
                packed._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in packed._aborted_producers:
                packed.next_fetch_offset = batch.next_offset
                continue
        if not batch.is_control_batch:
            found = list(batch)
            if found and found[0].offset < packed.next_fetch_offset:
                found = [record for record in found if record.offset >= packed.next_fetch_offset]
            yield found
        packed.next_fetch_offset = batch.next_offset


def unpack(result: Any) -> None:
    """Have this fetch give records as the parser makes them."""
    if type(result) is FetchResult and type(result._partition_records) is PartitionRecords:
        result._partition_records = Unpacked(result._partition_records)
