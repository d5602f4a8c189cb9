"""What is in Confluent's frames: schemas learnt by id before a batch is read, and records opened by them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from schemas.errors import BadRecord, RegistryError
from schemas.health import HealthComponent, HealthState
from streams.bars.records import records_of
from streams.batch import Batch
from streams.registry.confluent import ConfluentRegistry, Schema
from streams.registry.framing import HEAD_BYTES, schema_id, unframe

T = TypeVar("T")

#: A registry that is away is asked again so soon.
RETRY_S = 1.0

#: An id that the registry does not have is asked for again after so long: another node of it may have it.
ABSENT_S = 10.0

log = structlog.get_logger(__name__)


class Frames(Generic[T]):
    """Opens framed values of one topic.

    Contract: `open` asks nobody; the registry is asked once for each id, however many records have it. An id that
    it does not have, or whose schema cannot be read, is the record's fault. A registry that does not answer
    is nobody's: `learn` waits for it, and `health` says so.
    """

    def __init__(
        self, topic: str, registry: ConfluentRegistry, read: Callable[[Schema], Callable[[bytes], T]]
    ) -> None:
        self.topic = topic
        self._registry = registry
        self._read = read
        self._readers: dict[int, Callable[[bytes], T]] = {}
        self._refused: dict[int, tuple[str, float]] = {}
        """By id, why its records are refused, and until when that holds."""
        self._error = ""

    def knows(self, batch: Batch) -> bool:
        """Whether every schema in a batch is at hand, and stays so."""
        return _ids(batch) <= self._readers.keys()

    async def learn(self, batch: Batch) -> None:
        """Get the schemas of the ids in a batch, and wait where the registry is away, until the batch is void."""
        now = time.monotonic()
        self._refused = {i: refused for i, refused in self._refused.items() if refused[1] >= now}
        for number in sorted(_ids(batch) - self._readers.keys() - self._refused.keys()):
            learnt = False
            while not batch.void and not learnt:
                if not (learnt := await self._learnt(number)):
                    await asyncio.sleep(RETRY_S)
        if batch.void:
            self._error = ""  # nobody waits any more

    def open(self, value: bytes) -> T:
        """What is in a value. Raises `BadRecord`. From any thread."""
        number, payload = unframe(value)
        reader = self._readers.get(number)
        if reader is None:
            why, _ = self._refused.get(number, ("the registry was not asked for it", 0.0))
            raise BadRecord(f"schema {number}: {why}")
        try:
            return reader(payload)
        except BadRecord as exc:
            raise BadRecord(f"schema {number}: {exc}") from None

    def close(self) -> None:
        """Ask no more."""
        self._registry.close()

    def health(self) -> HealthComponent:
        """Degraded while a batch waits for the registry."""
        details = {"url": self._registry.url, "schemas": str(len(self._readers))}
        if not self._error:
            return HealthComponent(f"schema_registry:{self.topic}", HealthState.healthy, details)
        return HealthComponent(
            f"schema_registry:{self.topic}", HealthState.degraded, details | {"error": self._error}
        )

    async def _learnt(self, number: int) -> bool:
        try:
            schema = await self._registry.schema(number)
        except RegistryError as exc:
            if not self._error:
                log.warning(
                    "schema_registry.away",
                    url=self._registry.url,
                    topic=self.topic,
                    schema=number,
                    error=str(exc),
                    consequence="records wait until it answers; none is refused for it",
                )
            self._error = str(exc)
            return False
        if self._error:
            self._error = ""
            log.info("schema_registry.back", url=self._registry.url, topic=self.topic)
        until = time.monotonic() + ABSENT_S
        if schema is None:
            # No line of it: garbage may hold many ids, and each of its dead letters says so.
            self._refused[number] = "the registry has no schema of this id", until
            return True
        try:
            self._readers[number] = self._read(schema)
        except RegistryError as exc:
            log.warning("schema.refused", topic=self.topic, schema=number, error=str(exc))
            self._refused[number] = str(exc), until
        return True


def _ids(batch: Batch) -> set[int]:
    ids = set()
    for head in records_of(batch.records).heads(HEAD_BYTES):
        with suppress(BadRecord):
            ids.add(schema_id(head or b""))
    return ids
