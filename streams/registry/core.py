"""The ecosystem's schema registry, through core-registry-client, which has no cache and tries nothing twice.

Contract: `check` never waits and never asks the network; what it goes by is fetched in the background. A registry
that is away changes nothing while its schemas are known, however old; where none is known, `fail` decides. The
registry is never switched off by itself: `health` says what is wrong for as long as it is.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import structlog

from schemas.errors import BadRecord, ConfigError, RegistryError, SchemaMismatch
from schemas.health import HealthComponent, HealthState
from streams.extras import need
from streams.registry.cache import Schema, SchemaCache
from streams.registry.messages import OWN, REQUIRED, complaints, examples
from streams.settings import Settings

if TYPE_CHECKING:
    from core_registry_client import RegistryClient, SchemaResponse
    from core_registry_client.models import Track

Mode = Literal["off", "warn", "strict"]
Fail = Literal["open", "closed"]

#: After a failure it is asked again so soon, or each TTL, whichever is sooner.
RETRY_S = 5.0

#: A flood of messages that do not fit is logged so often.
_TELL_S = 10.0

log = structlog.get_logger(__name__)


class Verdict(NamedTuple):
    """Whether a message fits its schema, and what speaks against it."""

    fits: bool
    errors: list[str]


class SchemaRegistry:
    """Schemas by name: the preferred track's, else the fallback's."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        mode: Mode = "warn",
        fail: Fail = "open",
        tracks: tuple[str, ...] = ("v2", "v1"),
        ttl_s: float = 300.0,
        timeout_s: float = 5.0,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self.mode = mode
        self.mismatches = 0
        """Messages that did not fit."""
        self.unchecked = 0
        """Messages that were let through, or not, because no schema was known."""
        self.cache = SchemaCache(ttl_s, folder, clock)
        self.absent: set[str] = set()
        """Names that the registry does not have on any track."""
        self._token = token
        self._fail = fail
        self._tracks = tracks
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._client: RegistryClient | None = None
        self._error = ""
        self._wrong: dict[str, list[str]] = {}
        self._silent_until: dict[str, float] = {}

    @classmethod
    def of(cls, settings: Settings) -> SchemaRegistry | None:
        """The one that the settings name, if they do."""
        if not settings.registry_url:
            return None
        return cls(
            settings.registry_url,
            token=settings.registry_token.get_secret_value() if settings.registry_token else None,
            mode=settings.registry_mode,
            fail=settings.registry_fail,
            tracks=settings.registry_tracks,
            ttl_s=settings.registry_ttl / 1e9,
            timeout_s=settings.registry_timeout / 1e9,
            folder=settings.registry_cache,
        )

    async def start(self) -> None:
        """Fetch all schemas, and hold what Tidegate writes against them.

        Raises `SchemaMismatch` in strict mode, `RegistryError` where nothing is known of a schema and `fail` is
        closed, and `ConfigError` without the extra.
        """
        if self.mode == "off":
            return
        package = need("registry", "core_registry_client", "a schema registry")
        need("registry", "jsonschema", "a schema registry")
        for schema in self.cache.load((*REQUIRED, *OWN)):
            self._learn(schema)
        try:
            self._client = package.RegistryClient(self.url, token=self._token, timeout=self._timeout_s)
        except Exception as exc:  # what httpx says of a URL that is none
            raise ConfigError(
                f"registry_url {self.url}: {exc}", hint="it looks like http://host:8080"
            ) from None
        await self.refresh()
        unknown = [name for name in REQUIRED if self.cache.peek(name) is None]
        if unknown and self._fail == "closed":
            raise RegistryError(
                f"schema registry {self.url}: no schema of {', '.join(unknown)}: {self._error or 'not found'}",
                hint="registry_fail is closed; with open the worker starts without looking at messages",
            )
        self._tell_wrong(raising=self.mode == "strict")

    async def run(self) -> None:
        """Keep the schemas fresh until cancelled."""
        while self.mode != "off":
            await asyncio.sleep(min(self._ttl_s, RETRY_S) if self._error else self._ttl_s * 0.9)
            was = self._error
            await self.refresh()
            if was and not self._error:
                log.info("registry.back", url=self.url)
            self._tell_wrong(raising=False)

    async def refresh(self) -> None:
        """Fetch each schema anew; what cannot be fetched stays as it is, and keeps no other from it."""
        names = (*REQUIRED, *OWN)
        # All at once: where nobody answers, a start waits for one timeout.
        answers = await asyncio.gather(*map(self._answer, names))
        failed = ""
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, RegistryError):
                failed = failed or str(answer)
            elif answer is None:
                self.absent.add(name)
            else:
                self.absent.discard(name)
                self.cache.put(answer)
                self._learn(answer)
        was, self._error = self._error, failed
        if failed and not was:
            log.warning("registry.away", url=self.url, error=failed, consequence="what is known is used on")

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()

    def check(self, name: str, message: Any) -> Verdict:
        """Hold a message (a JSON object) against the schema of that name.

        Raises `SchemaMismatch` in strict mode, and `RegistryError` where no schema is known and `fail` is closed.
        """
        if self.mode == "off":
            return Verdict(True, [])
        schema = self.cache.get(name)
        if schema is None:
            self.unchecked += 1
            if self._fail == "closed":
                raise RegistryError(f"no schema of {name} is known, and registry_fail is closed")
            return Verdict(True, [])
        errors = complaints(schema.content, message)
        if not errors:
            return Verdict(True, [])
        self.mismatches += 1
        if self.mode == "strict":
            raise SchemaMismatch(name, errors, schema.track)
        self._tell(name, schema, errors)
        return Verdict(False, errors)

    def accept(self, name: str, value: bytes | None) -> None:
        """Hold a record's value against the schema of that name. Raises `BadRecord` where it must be refused."""
        try:
            self.check(name, json.loads(value or b"null"))
        except RegistryError as exc:
            raise BadRecord(str(exc)) from None

    def health(self) -> HealthComponent:
        """Degraded while the registry is away, or something does not fit; unhealthy where that is not allowed."""
        schemas = {name: self.cache.peek(name) for name in REQUIRED}
        ages = [self.cache.age_s(schema) for schema in schemas.values() if schema is not None]
        details = {"url": self.url, "mode": self.mode, "schemas": f"{len(ages)} of {len(schemas)}"}
        if ages:
            details["oldest_s"] = f"{max(ages):.0f}"
        if self._error:
            details["error"] = self._error
        wrong = {name: errors for name, errors in self._wrong.items() if errors}
        if wrong:
            details["does_not_fit"] = ", ".join(sorted(wrong))
        state = HealthState.healthy
        if self._error or wrong or len(ages) < len(schemas) or self.absent & set(REQUIRED):
            state = HealthState.degraded
        if (wrong and self.mode == "strict") or (len(ages) < len(schemas) and self._fail == "closed"):
            state = HealthState.unhealthy
        return HealthComponent("registry", state if self.mode != "off" else HealthState.healthy, details)

    def schemas(self) -> Mapping[str, Schema | None]:
        """Everything that is asked for, and what is known of it."""
        return {name: self.cache.peek(name) for name in (*REQUIRED, *OWN)}

    def wrong(self, name: str) -> list[str]:
        """What the schema of that name has against what Tidegate writes."""
        return self._wrong.get(name, [])

    async def _answer(self, name: str) -> Schema | RegistryError | None:
        try:
            return await self._fetch(name)
        except RegistryError as exc:
            return exc

    async def _fetch(self, name: str) -> Schema | None:
        """None where no track has it. Raises `RegistryError`, also for an answer that is none."""
        # The ecosystem has its own under two names.
        for asked in (name, f"{name}.schema") if name in REQUIRED else (name,):
            for track in self._tracks:
                if (found := await self._ask(track, asked)) is not None:
                    return Schema(
                        name, found.track, found.core_version, found.sha256, found.content, self.cache.now()
                    )
        return None

    async def _ask(self, track: str, name: str) -> SchemaResponse | None:
        client = need("registry", "core_registry_client.client", "a schema registry")
        assert self._client is not None  # noqa: S101  start() made it
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._client.fetch_schema(cast("Track", track), name)
        except client.SchemaNotFoundError:
            return None
        except TimeoutError:
            raise RegistryError(f"no answer within {self._timeout_s:g} s") from None
        except (client.RegistryError, ValueError, TypeError) as exc:  # no JSON, or of another shape
            raise RegistryError(" ".join(str(exc).split())) from None

    def _learn(self, schema: Schema) -> None:
        """Hold what Tidegate writes against a schema."""
        found = {e for example in examples(schema.name) for e in complaints(schema.content, example)}
        self._wrong[schema.name] = sorted(found)

    def _tell_wrong(self, *, raising: bool) -> None:
        for name, errors in self._wrong.items():
            schema = self.cache.peek(name)
            if not errors or schema is None:
                continue
            if raising:
                raise SchemaMismatch(name, errors, schema.track)
            self._tell(name, schema, errors)

    def _tell(self, name: str, schema: Schema, errors: list[str]) -> None:
        if (now := time.monotonic()) < self._silent_until.get(name, 0.0):
            return
        self._silent_until[name] = now + _TELL_S
        log.warning(
            "schema.mismatch", schema=name, track=schema.track, errors=errors[:5], mismatches=self.mismatches
        )
