"""Core's event bus on Redis Streams, read and written so that nothing is lost.

Keys, fields, dead letters and envelopes are those of market-data-core's `RedisStreamsBus`, whose peers cannot tell
the difference. Its own `subscribe` and `ack` are not used, because (1.4.61):

- `ack` does nothing. All that a consumer was ever given stays pending, and what one that crashed had not dealt with
  is given to nobody. Here entries are acknowledged once they are done, and those of consumers that are gone are
  claimed.
- `subscribe` dead-letters what the store's publisher and core's own `publish` send, as their schema ids are unknown
  to it; a value that is not UTF-8 ends it, and so does a Redis that restarts.
- A group begins at the end of the stream: what was said before is not heard. Here the end of the stream is read.

Who reads in a group gets a share of the entries, and the last word of a coordinator may be in another one's. So
what is new is read from the stream itself; the group only says which entries are ours to acknowledge or to refuse.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from market_data_core.telemetry import FeedbackEvent
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from schemas.errors import BusAway, ConfigError
from streams.ecosystem.buses import Entry
from streams.ecosystem.envelopes import encode_envelope
from streams.ecosystem.pulse_settings import PulseSettings

#: Entries at the end of the stream that are read at the start, and those of one request.
RECALLED = 10_000
_PAGE = 500
_CONNECT_S = 3.0
#: Longer than any wait for entries: an answer that takes so long is none.
_ANSWER_S = 5.0
_MAX_WAIT_S = 2.0
#: Entries that a consumer has had for so long without acknowledging them are somebody else's to finish.
_CLAIM_AFTER_S = 15.0
_ZERO = "0-0"
_DATA = b"data"


class RedisBus:
    """The stream of feedback on Redis, for one consumer of one group."""

    def __init__(self, settings: PulseSettings) -> None:
        self._settings = settings
        self._key = f"{settings.namespace}:{settings.stream}"
        try:
            self._redis: Any = redis.Redis.from_url(
                settings.redis_url,
                socket_connect_timeout=_CONNECT_S,
                socket_timeout=_ANSWER_S,
                retry=Retry(NoBackoff(), 0),  # the bridge tries again, and says so
            )
        except (ValueError, TypeError) as exc:
            raise ConfigError(
                f"the URL of Redis cannot be used: {exc}",
                hint="--redis-url or REDIS_URL must be as redis://HOST:PORT/0, or rediss:// with TLS",
            ) from None
        self.name = f"{_place(self._redis)}, stream {self._key}, group {settings.group}"
        self._cursor = _ZERO
        self._generation = 0
        self._joined = False
        self._claimed_at = 0.0

    async def open(self) -> None:
        """Raises `BusAway` where nobody answers, or where the login, a right or the key is wrong."""
        try:
            with _answering():
                await self._redis.ping()
                await self._redis.xrevrange(self._key, count=1)
        except BusAway as exc:
            raise BusAway(f"Redis at {_place(self._redis)}: {exc}", hint=_hint(exc)) from None

    async def recall(self) -> list[Entry]:
        """The last entries, and from here `read` goes on."""
        with _answering():
            found: list[tuple[bytes, Mapping[bytes, bytes]]] = []
            before = "+"
            while len(found) < RECALLED:
                page = await self._redis.xrevrange(self._key, max=before, count=_PAGE)
                found += page
                if len(page) < _PAGE:
                    break
                before = f"({page[-1][0].decode()}"
            found.reverse()
            if found:
                self._cursor = found[-1][0].decode()
            return await self._entries(dict(found), {})

    async def read(self, wait_s: float) -> list[Entry]:
        """What the group gives to us, and what it gave to others."""
        with _answering():
            try:
                return await self._read(wait_s)
            except ResponseError as exc:
                if not str(exc).startswith("NOGROUP"):
                    raise
            # Redis has come back without its data, or somebody has deleted it: all that is there now is new.
            self._joined = False
            self._cursor = _ZERO
            self._generation += 1
            await self._join(_ZERO)
            return await self._read(wait_s)

    async def _read(self, wait_s: float) -> list[Entry]:
        mine: dict[bytes, Mapping[bytes, bytes] | None] = {}
        if not self._joined:
            # From where `recall` has ended: what came since then is read as new, so it must be ours to deal with.
            await self._join(self._cursor)
            mine |= await self._left_undone()
            if trimmed := [id_ for id_, fields in mine.items() if fields is None]:
                await self._redis.xack(self._key, self._settings.group, *trimmed)
                mine = {id_: fields for id_, fields in mine.items() if fields is not None}
        elif time.monotonic() - self._claimed_at > _CLAIM_AFTER_S:
            mine |= await self._claim()
        block = None if mine else max(1, round(min(wait_s, _MAX_WAIT_S) * 1000))
        mine |= await self._take(">", block)
        seen = dict(await self._redis.xrange(self._key, min=f"({self._cursor}", count=_PAGE))
        if seen:
            self._cursor = max(seen, key=_order).decode()
        return await self._entries(seen, mine) if seen or mine else []

    async def _join(self, begin: str) -> None:
        try:
            await self._redis.xgroup_create(self._key, self._settings.group, id=begin, mkstream=True)
        except ResponseError as exc:
            if not str(exc).startswith("BUSYGROUP"):
                raise
        self._joined = True

    async def _left_undone(self) -> dict[bytes, Mapping[bytes, bytes] | None]:
        """What this consumer was given before it was killed."""
        return {**await self._take("0", None), **await self._claim()}

    async def _take(self, begin: str, block_ms: int | None) -> dict[bytes, Mapping[bytes, bytes] | None]:
        given = await self._redis.xreadgroup(
            self._settings.group, self._settings.consumer, {self._key: begin}, count=_PAGE, block=block_ms
        )
        streams = given.values() if isinstance(given, dict) else [entries for _, entries in given or ()]
        return {id_: fields for entries in streams for id_, fields in _flat(entries)}

    async def _claim(self) -> dict[bytes, Mapping[bytes, bytes] | None]:
        """What others were given and have not finished: they are gone, or their `ack` does nothing."""
        self._claimed_at = time.monotonic()
        _, claimed, *_ = await self._redis.xautoclaim(
            self._key,
            self._settings.group,
            self._settings.consumer,
            min_idle_time=round(_CLAIM_AFTER_S * 1000),
            count=_PAGE,
        )
        if len(claimed) == _PAGE:
            self._claimed_at = 0.0  # there are more
        return dict(_flat(claimed))

    async def _entries(
        self, seen: Mapping[bytes, Mapping[bytes, bytes]], mine: Mapping[bytes, Mapping[bytes, bytes] | None]
    ) -> list[Entry]:
        seconds, micros = await self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        entries = []
        for id_ in sorted({*seen, *mine}, key=_order):
            fields = seen.get(id_) or mine.get(id_)
            ms, number = _order(id_)
            entry = Entry(
                id=id_.decode(),
                order=(self._generation, ms, number),
                value=fields.get(_DATA, b"") if fields else b"",
                age_s=max(0, now_ms - ms) / 1000,
                mine=id_ in mine,
            )
            entries.append(entry)
        return entries

    async def ack(self, ids: Collection[str]) -> None:
        """Nobody gets them again."""
        if ids:
            with _answering():
                await self._redis.xack(self._key, self._settings.group, *ids)

    async def refuse(self, entry: Entry, reason: str) -> None:
        """Into core's stream of dead letters, with the bytes as they came; and acknowledged, in one transaction."""
        fields = {"original_id": entry.id, "reason": reason, "data": entry.value}
        with _answering():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xadd(f"{self._key}.dlq", fields)
                pipe.xack(self._key, self._settings.group, entry.id)
                await pipe.execute()

    async def publish(self, event: FeedbackEvent, headers: Mapping[str, str]) -> None:
        """As core's `publish`, but under the schema id that its subscribers know."""
        data = encode_envelope(event, track=self._settings.track, headers=headers)
        with _answering():
            await self._redis.xadd(self._key, {"data": data})

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as exc:
        raise BusAway(str(exc) or type(exc).__name__) from exc


def _flat(entries: Any) -> Iterator[tuple[bytes, Mapping[bytes, bytes] | None]]:
    """Entries; version 3 of the protocol puts all of them into one more list, even if there are none."""
    for entry in entries:
        if isinstance(entry, list) and not (entry and isinstance(entry[0], bytes)):
            yield from _flat(entry)
        elif entry[0] is not None:
            yield entry[0], entry[1] or None


def _order(id_: bytes) -> tuple[int, int]:
    ms, number = id_.split(b"-")
    return int(ms), int(number)


def _place(client: Any) -> str:
    """Host, port and database, without the login."""
    known = client.connection_pool.connection_kwargs
    database = known.get("db", 0) or 0
    return (
        f"{known['path']}/{database}"
        if "path" in known
        else f"{known.get('host')}:{known.get('port', 6379)}/{database}"
    )


def _hint(exc: BusAway) -> str:
    cause = exc.__cause__
    if isinstance(cause, NoPermissionError):
        return "the user lacks a right on this key"
    if isinstance(cause, AuthenticationError) or "NOAUTH" in str(cause):
        return "is the password in REDIS_URL right? redis://USER:PASSWORD@HOST:PORT/0"
    if str(cause).startswith("WRONGTYPE"):
        return "the key holds something else than a stream: are MD_NAMESPACE and --stream right?"
    return "is it running, and is --redis-url (REDIS_URL) right?"
