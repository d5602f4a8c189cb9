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
from streams.batch import Batch
from streams.registry.confluent import ConfluentRegistry, Schema
from streams.registry.framing import schema_id as id_in
from streams.registry.framing import unframe

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
        """Whether `learn` has nothing to ask for."""
        return not self._unknown(batch)

    async def learn(self, batch: Batch) -> None:
        """Get the schemas of the ids in a batch, and wait where the registry is away, until the batch is void."""
        unknown = self._unknown(batch)
        for schema_id in sorted(unknown):
            self._refused.pop(schema_id, None)
            learnt = False
            while not batch.void and not learnt:
                if not (learnt := await self._learnt(schema_id)):
                    await asyncio.sleep(RETRY_S)

    def open(self, value: bytes) -> T:
        """What is in a value. Raises `BadRecord`. From any thread."""
        schema_id, payload = unframe(value)
        reader = self._readers.get(schema_id)
        if reader is None:
            why, _ = self._refused.get(schema_id, ("the registry was not asked for it", 0.0))
            raise BadRecord(f"schema {schema_id}: {why}")
        try:
            return reader(payload)
        except BadRecord as exc:
            raise BadRecord(f"schema {schema_id}: {exc}") from None

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

    def _unknown(self, batch: Batch) -> set[int]:
        ids = set()
        for record in batch.records:
            with suppress(BadRecord):
                ids.add(id_in(record.value or b""))
        now = time.monotonic()
        return {i for i in ids - self._readers.keys() if i not in self._refused or self._refused[i][1] < now}

    async def _learnt(self, schema_id: int) -> bool:
        try:
            schema = await self._registry.schema(schema_id)
        except RegistryError as exc:
            if not self._error:
                log.warning(
                    "schema_registry.away",
                    url=self._registry.url,
                    topic=self.topic,
                    schema=schema_id,
                    error=str(exc),
                    consequence="records wait until it answers; none is refused for it",
                )
            self._error = str(exc)
            return False
        if self._error:
            self._error = ""
            log.info("schema_registry.back", url=self._registry.url, topic=self.topic)
        try:
            if schema is None:
                raise RegistryError("the registry has no schema of this id")
            self._readers[schema_id] = self._read(schema)
        except RegistryError as exc:
            log.warning("schema.refused", topic=self.topic, schema=schema_id, error=str(exc))
            self._refused[schema_id] = str(exc), time.monotonic() + ABSENT_S
        return True
