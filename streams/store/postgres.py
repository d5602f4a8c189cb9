"""Bars in PostgreSQL, 13 or later, which any number of workers write and anyone reads.

A batch is copied into a temporary table and merged from there in one transaction: it is twice as fast as arrays in
parameters. Numbers are NUMERIC without bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from schemas.bar import Bar
from schemas.errors import BadBar, StoreRefused, StoreTooSlow, TidegateError
from streams.store.base import BarQuery, WriteResult, redact
from streams.store.fit import fitted, named
from streams.store.postgres_errors import explain
from streams.store.postgres_session import connect, hang_up, roll_back
from streams.store.postgres_sql import (
    CLEAR_STAGE,
    CREATE,
    CREATE_STAGE,
    DROP_STALE,
    FIND_COLUMNS,
    FIND_CONFLICTS,
    FIND_KEY,
    FIND_RIGHTS,
    INSERT_NEW,
    LOCK,
    SESSION,
    STAGE,
    TAKE_BACK,
    TYPES,
    UPSERT,
    select,
)
from streams.store.table import COLUMNS, KEY, complaints, to_bar, to_row
from streams.store.versions import conflicting, key_of, rounds

READ_ROWS = 5_000

_OTHER_SCHEMA = "name another database, or another schema with ?search_path=SCHEMA"


class PostgresStore:
    """A `Store` in PostgreSQL: one connection for writing, and one for each read."""

    def __init__(self, url: str, *, read_only: bool = False, timeout_s: float = 300.0) -> None:
        self.name = redact(url)
        self._url = url
        self._read_only = read_only
        self._timeout_s = timeout_s
        self._connection: Any = None
        self._started = False
        self._last = _Merged()
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """As `Store.open`."""
        async with self._lock:
            try:
                with self._explaining():
                    async with asyncio.timeout(self._timeout_s):
                        connection = await self._connected()
                        await connection.execute("SELECT 1")
            except BaseException:
                self._drop()
                raise

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        """As `Store.write`."""
        async with self._lock:
            try:
                # Around all of it: the driver waits without end for room in the socket, say.
                async with asyncio.timeout(self._timeout_s) as limit:
                    return await self._write(bars)
            except BadBar as error:
                raise named(error, bars) from error
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise StoreTooSlow(
                    f"{self.name}: a write of {len(bars):,} bars took longer than {self._timeout_s:g} s",
                    hint="is the database overloaded, or the table locked?",
                ) from error

    async def read(self, query: BarQuery) -> AsyncIterator[list[Bar]]:
        """As `Store.read`; sees what was committed when it began."""
        with self._explaining():
            connection = await self._connect()
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    sql, args = select(query)
                    cursor = await connection.cursor(sql, *args)
                    while rows := await cursor.fetch(READ_ROWS):
                        yield [to_bar(tuple(row)) for row in rows]
            finally:
                await hang_up(connection)

    async def close(self) -> None:
        """As `Store.close`; waits for a write in progress."""
        async with self._lock:
            connection, self._connection, self._started = self._connection, None, False
            if connection is not None:
                await hang_up(connection)

    async def _write(self, bars: Sequence[Bar]) -> WriteResult:
        rows = fitted(bars)
        merged, refused = _Merged(), list[Bar]()
        try:
            with self._explaining():
                connection = await self._connected()
                transaction = connection.transaction()
                await transaction.start()
                # The server would fit numbers into a column that was narrowed meanwhile.
                await self._check_columns(connection)
                for n, some in enumerate(rounds(rows)):
                    if n:
                        await connection.execute(CLEAR_STAGE)
                    done, conflicts = await _merge(connection, some, self._last)
                    merged += done
                    refused += conflicts
                await transaction.commit()
        except BadBar:
            await roll_back(connection, transaction)
            raise
        except BaseException:
            self._drop()  # and with it the transaction, in whatever state it is
            raise
        self._last = merged
        conflicts = conflicting(bars, refused)
        return WriteResult(merged.written, len(bars) - merged.written - len(conflicts), conflicts)

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            with self._explaining(writing=False):
                connection = await self._connect()
                try:
                    await self._prepare(connection)
                except BaseException:
                    connection.terminate()
                    raise
            self._connection, self._started = connection, True
        return self._connection

    async def _connect(self) -> Any:
        return await connect(self._url, self.name, read_only=self._read_only, timeout_s=self._timeout_s)

    async def _prepare(self, connection: Any) -> None:
        if self._read_only:
            await self._check(connection)
            return
        await connection.execute(SESSION)
        async with connection.transaction():
            await connection.execute(LOCK)
            if not self._started and await connection.fetchval("SELECT to_regclass('bars')") is None:
                await connection.execute(CREATE)
            await self._check(connection)
        await connection.execute(CREATE_STAGE)

    async def _check_columns(self, connection: Any) -> None:
        found = dict(map(tuple, await connection.fetch(FIND_COLUMNS)))
        if not found and self._started:
            raise StoreRefused(
                f"{self.name}: its table bars is gone",
                hint="put it back; a worker makes a new one only when it starts",
            )
        if not found:
            raise StoreRefused(f"{self.name}: holds no table bars", hint=_OTHER_SCHEMA)
        if wrong := complaints(found, TYPES):
            raise self._another_table(wrong)

    async def _check(self, connection: Any) -> None:
        await self._check_columns(connection)
        if not self._read_only and not await connection.fetchval(FIND_KEY):
            raise self._another_table(f"it has no primary key ({', '.join(KEY)})")
        rights = dict(await connection.fetchrow(FIND_RIGHTS))
        needed = list(rights)[:1] if self._read_only else list(rights)
        if missing := [right for right in needed if not rights[right]]:
            raise StoreRefused(
                f"{self.name}: its user has no {', no '.join(missing)}", hint="GRANT what is missing"
            )

    def _another_table(self, wrong: str) -> StoreRefused:
        return StoreRefused(f"{self.name}: its table bars is not Tidegate's: {wrong}", hint=_OTHER_SCHEMA)

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    @contextmanager
    def _explaining(self, *, writing: bool = True) -> Iterator[None]:
        try:
            yield
        except TidegateError:
            raise
        except Exception as error:
            found = explain(error, self.name)
            if isinstance(found, BadBar) and not writing:  # a setting of the session, say
                found = StoreRefused(f"{self.name}: {found}")
            raise found from error


@dataclass(frozen=True, slots=True)
class _Merged:
    """What became of a batch: a good guess at what will become of the next."""

    bars: int = 0
    written: int = 0
    new: int = 0
    """Of the written ones, those that had no row before."""

    @property
    def all_new(self) -> bool:
        """Whether nothing of it was there; also of no batch at all."""
        return self.new == self.bars

    @property
    def mostly_stale(self) -> bool:
        """Whether most of it was there already, as after a restart."""
        return 2 * self.written < self.bars

    def __add__(self, more: _Merged) -> _Merged:
        return _Merged(self.bars + more.bars, self.written + more.written, self.new + more.new)


async def _merge(connection: Any, bars: list[Bar], last: _Merged) -> tuple[_Merged, list[Bar]]:
    """What was written, and the bars that were not as their row has another source.

    How is a matter of speed only, and chosen by what became of the `last` batch.
    """
    await connection.copy_records_to_table(STAGE, records=map(to_row, bars), columns=COLUMNS)
    if last.all_new and await _insert(connection):
        return _Merged(len(bars), len(bars), len(bars)), []
    left = len(bars)
    if last.mostly_stale:
        left -= _count(await connection.execute(DROP_STALE))
    written, new = await connection.fetchrow(UPSERT) if left else (0, 0)
    conflicts = []
    if written < left:
        by_key = {key_of(bar): bar for bar in bars}
        conflicts = [by_key[tuple(row)] for row in await connection.fetch(FIND_CONFLICTS)]
    return _Merged(len(bars), written, new), conflicts


async def _insert(connection: Any) -> bool:
    """Whether the bars were all new; nothing is written where one is not."""
    try:
        await connection.execute(INSERT_NEW)
        if await connection.fetchval(FIND_KEY):  # without it nothing would tell a row that is there twice
            return True
    except asyncpg.UniqueViolationError:
        pass
    await connection.execute(TAKE_BACK)
    return False


def _count(tag: str) -> int:
    """The rows that a statement says it changed."""
    return int(tag.rpartition(" ")[2])
