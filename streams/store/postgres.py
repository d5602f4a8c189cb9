"""Bars in PostgreSQL, 13 or later, which any number of workers write and anyone reads.

A batch is copied into a temporary table and merged from there with INSERT ... ON CONFLICT in one transaction:
it is twice as fast as arrays in parameters. Numbers are NUMERIC without bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

from schemas.bar import Bar
from schemas.errors import BadBar, StoreError, TidegateError
from streams.store.base import BarQuery, WriteResult, redact
from streams.store.fit import fitted, name_refused
from streams.store.postgres_errors import explain, unreadable_url
from streams.store.postgres_sql import (
    CLEAR_STAGE,
    CREATE,
    CREATE_STAGE,
    FIND_COLUMNS,
    FIND_CONFLICTS,
    FIND_KEY,
    FIND_RIGHTS,
    LOCK,
    PLAN,
    STAGE,
    TYPES,
    UPSERT,
    select,
)
from streams.store.table import COLUMNS, KEY, complaints, to_bar, to_row
from streams.store.versions import conflicting, key_of, rounds

CONNECT_TIMEOUT_S = 10.0
STATEMENT_TIMEOUT_S = 300.0
"""A peer that vanished without a word; a slow database must be left in peace."""
READ_ROWS = 5_000

_OTHER_SCHEMA = "name another database, or another schema with ?search_path=SCHEMA"


class PostgresStore:
    """A `Store` in PostgreSQL: one connection for writing, and one for each read."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.name = redact(url)
        self._url = url
        self._read_only = read_only
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """As `Store.open`."""
        async with self._lock:
            try:
                with self._explaining():
                    connection = await self._connected()
                    await connection.execute("SELECT 1")
            except StoreError:
                self._drop()
                raise

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        """As `Store.write`."""
        async with self._lock:
            try:
                return await self._write(bars)
            except BadBar as error:
                if error.bar is not None:
                    raise
                raise await name_refused(bars, error, self._refusal) from error

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
                await _hang_up(connection)

    async def close(self) -> None:
        """As `Store.close`; waits for a write in progress."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await _hang_up(connection)

    async def _refusal(self, bars: Sequence[Bar]) -> BadBar | None:
        try:
            await self._write(bars, keep=False)
        except BadBar as error:
            return error
        return None

    async def _write(self, bars: Sequence[Bar], *, keep: bool = True) -> WriteResult:
        rows = fitted(bars)
        written, refused = 0, list[Bar]()
        try:
            with self._explaining():
                connection = await self._connected()
                transaction = connection.transaction()
                await transaction.start()
                for n, some in enumerate(rounds(rows)):
                    if n:
                        await connection.execute(CLEAR_STAGE)
                    count, conflicts = await _merge(connection, some)
                    written += count
                    refused += conflicts
                await (transaction.commit() if keep else transaction.rollback())
        except BaseException:
            self._drop()  # and with it the transaction, in whatever state it is
            raise
        conflicts = conflicting(bars, refused)
        return WriteResult(written, len(bars) - written - len(conflicts), conflicts)

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            connection = await self._connect()
            try:
                await self._prepare(connection)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    async def _connect(self) -> Any:
        settings = {} if "application_name=" in self._url else {"application_name": "tidegate"}
        if self._read_only:
            settings["default_transaction_read_only"] = "on"
        try:
            return await asyncpg.connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=STATEMENT_TIMEOUT_S,
                server_settings=settings,
            )
        except ValueError as error:
            if isinstance(error, OSError):  # of a certificate
                raise
            raise unreadable_url(self.name) from None

    async def _prepare(self, connection: Any) -> None:
        if self._read_only:
            await self._check(connection)
            return
        async with connection.transaction():
            await connection.execute(LOCK)
            if await connection.fetchval("SELECT to_regclass('bars')") is None:
                await connection.execute(CREATE)
            await self._check(connection)
        await connection.execute(CREATE_STAGE)
        await connection.execute(PLAN)

    async def _check(self, connection: Any) -> None:
        found = dict(map(tuple, await connection.fetch(FIND_COLUMNS)))
        if not found:
            raise StoreError(f"{self.name}: holds no table bars", hint=_OTHER_SCHEMA)
        wrong = complaints(found, TYPES)
        if not wrong and not self._read_only and not await connection.fetchval(FIND_KEY):
            wrong = f"it has no primary key ({', '.join(KEY)})"
        if wrong:
            raise StoreError(f"{self.name}: its table bars is not Tidegate's: {wrong}", hint=_OTHER_SCHEMA)
        rights = dict(await connection.fetchrow(FIND_RIGHTS))
        needed = list(rights)[:1] if self._read_only else list(rights)
        if missing := [right for right in needed if not rights[right]]:
            raise StoreError(
                f"{self.name}: its user has no {', no '.join(missing)}", hint="GRANT what is missing"
            )

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except TidegateError:
            raise
        except Exception as error:
            raise explain(error, self.name) from error


async def _merge(connection: Any, bars: list[Bar]) -> tuple[int, list[Bar]]:
    """How many bars were written, and which were not as their row has another source."""
    await connection.copy_records_to_table(STAGE, records=map(to_row, bars), columns=COLUMNS)
    tag: str = await connection.execute(UPSERT)
    written = int(tag.rpartition(" ")[2])
    conflicts = []
    if written < len(bars):
        by_key = {key_of(bar): bar for bar in bars}
        conflicts = [by_key[tuple(row)] for row in await connection.fetch(FIND_CONFLICTS)]
    return written, conflicts


async def _hang_up(connection: Any) -> None:
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await connection.close(timeout=CONNECT_TIMEOUT_S)
