"""Schemas that were fetched, in memory and in a folder, so that a worker can start while the registry is away."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

log = structlog.get_logger(__name__)


class Schema(msgspec.Struct, frozen=True):
    """One JSON Schema as the registry had it."""

    name: str
    track: str
    version: str
    """The version of market-data-core that it came with."""
    sha256: str
    content: dict[str, Any]
    fetched_at: float
    """Seconds since the epoch."""


class SchemaCache:
    """The newest known schema of each name.

    What is on disk is a copy of what is in memory, a file a name, written whole or not at all.
    """

    def __init__(self, ttl_s: float, folder: Path | None, clock: Callable[[], float]) -> None:
        self.hits: Counter[str] = Counter()
        """How often a schema was asked for while it was fresh, by name."""
        self.misses: Counter[str] = Counter()
        """The same, when it was not, or not known."""
        self._ttl_s = ttl_s
        self._folder = folder
        self._clock = clock
        self._schemas: dict[str, Schema] = {}

    def load(self, names: Iterable[str]) -> list[Schema]:
        """Take up what an earlier process has left; what cannot be read is as good as absent."""
        if self._folder is None:
            return []
        for name in names:
            path = self._path(self._folder, name)
            try:
                schema = msgspec.json.decode(path.read_bytes(), type=Schema)
            except FileNotFoundError:
                continue
            except (OSError, msgspec.DecodeError) as exc:
                log.warning("registry.cache_unreadable", file=str(path), error=str(exc))
                continue
            if schema.name == name:
                self._schemas[name] = schema
        return list(self._schemas.values())

    def get(self, name: str) -> Schema | None:
        """The schema, fresh or stale; counted as a hit while it is fresh."""
        schema = self._schemas.get(name)
        if schema is not None and self.is_fresh(schema):
            self.hits[name] += 1
        else:
            self.misses[name] += 1
        return schema

    def peek(self, name: str) -> Schema | None:
        """The same, uncounted."""
        return self._schemas.get(name)

    def put(self, schema: Schema) -> None:
        """Keep it. A folder that cannot be written is told, and costs nothing but the next start."""
        self._schemas[schema.name] = schema
        if self._folder is None:
            return
        path = self._path(self._folder, schema.name)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(schema))
            part.replace(path)
        except OSError as exc:
            log.warning("registry.cache_unwritable", file=str(path), error=str(exc))

    def is_fresh(self, schema: Schema) -> bool:
        """Whether it was fetched within the TTL. One that was fetched in the future was not."""
        return 0 <= self.age_s(schema) < self._ttl_s

    def now(self) -> float:
        """When something that is fetched now was fetched."""
        return self._clock()

    def age_s(self, schema: Schema) -> float:
        """Seconds since it was fetched."""
        return self._clock() - schema.fetched_at

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / f"{name}.json"
