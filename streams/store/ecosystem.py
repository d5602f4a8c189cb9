"""Bars in the tables of market-data-store, and beside them, in Tidegate's own table, as they are.

The tables of the ecosystem hold numbers of 53 bits, no versions and no sources. So every bar goes into
`tidegate_bars` first, by the rules of the PostgreSQL store; what is new there goes into the table of the ecosystem
by the clients that market-data-store publishes. Both are one transaction: the clients are lent the connection, and
their commit ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg

from schemas.bar import Bar
from schemas.errors import BadBar, StoreRefused, StoreTooSlow, StoreUnavailable, TidegateError
from streams.store import postgres_session
from streams.store.base import BarQuery, WriteResult
from streams.store.ecosystem_sql import (
    CLEAR_STAGE,
    COPY,
    CREATE_STAGE,
    FIND_COLUMNS,
    FIND_CONFLICTS,
    FIND_TAKEN,
    INSERT_NEW,
    REPLACE_OLDER,
    select,
)
from streams.store.ecosystem_tables import TIDEGATE_BARS, TableShape
from streams.store.ecosystem_url import EcosystemUrl
from streams.store.fit import bad_bar, fitted, named
from streams.store.psycopg_session import Connection, connect, conninfo, explain, roll_back
from streams.store.survey import survey
from streams.store.table import to_bar, to_row
from streams.store.versions import conflicting, key_of, rounds

READ_ROWS = 5_000
INIT = "make the tables with: tidegate store init"


class Peer(Protocol):
    """A table of the ecosystem, and the published client that writes it."""

    shape: TableShape
    settings: dict[str, str]
    """Of the session, for those who look at it with policies of row level security."""

    def row(self, bar: Bar) -> Any:
        """The bar as the client takes it; raises BadBar where the table cannot hold it."""

    async def write(self, connection: Connection, rows: list[Any]) -> None:
        """Write the rows, each key once, and commit."""


class EcosystemStore:
    """A `Store` on one connection of psycopg, which the clients of market-data-store write with."""

    def __init__(
        self, url: EcosystemUrl, name: str, peer: Peer, *, read_only: bool = False, timeout_s: float = 300.0
    ) -> None:
        self.name = name
        self._url = url
        self._peer = peer
        self._read_only = read_only
        self._timeout_s = timeout_s
        self._shapes = {shape.name: shape for shape in (TIDEGATE_BARS, peer.shape)}
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """As `Store.open`, but the tables must be there: `tidegate store init` makes them."""
        async with self._lock:
            self._drop()
            with self._explaining(writing=False):
                async with asyncio.timeout(self._timeout_s):
                    await self._survey()
                    if not self._read_only:
                        await self._connected()

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        """As `Store.write`; raises BadBar also for what the table of the ecosystem cannot hold."""
        async with self._lock:
            try:
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
        """As `Store.read`, of Tidegate's own table: exact, and with what the ecosystem's has no room for."""
        with self._explaining():
            connection = await self._asyncpg(read_only=True)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    sql, args = select(query, self._url.tenant)
                    cursor = await connection.cursor(sql, *args)
                    while rows := await cursor.fetch(READ_ROWS):
                        yield [to_bar(tuple(row)) for row in rows]
            finally:
                await postgres_session.hang_up(connection)

    async def close(self) -> None:
        """As `Store.close`; waits for a write in progress."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close()

    async def _write(self, bars: Sequence[Bar]) -> WriteResult:
        exact = fitted(bars)
        projected = {id(bar): self._peer.row(bar) for bar in exact}
        refused, rows = list[Bar](), list[Any]()
        connection = None
        try:
            with self._explaining():
                connection = await self._connected()
                # The server would fit numbers into a column that was narrowed meanwhile.
                await self._check_columns(connection)
                for n, some in enumerate(rounds(exact)):
                    if n:
                        await connection.execute(CLEAR_STAGE)
                    newest, conflicts = await self._merge(connection, some)
                    rows += [projected[id(bar)] for bar in newest]
                    refused += conflicts
                if rows:
                    await self._peer.write(connection, rows)
                await connection.commit()
        except BadBar:
            if connection is not None and not await roll_back(connection):
                self._drop()
            raise
        except BaseException:
            self._drop()  # and with it the transaction, in whatever state it is
            raise
        conflicts = conflicting(bars, refused)
        return WriteResult(len(rows), len(bars) - len(rows) - len(conflicts), conflicts)

    async def _merge(self, connection: Connection, bars: list[Bar]) -> tuple[list[Bar], list[Bar]]:
        """The bars that are new in Tidegate's table, and those whose row has another source."""
        by_key = {key_of(bar): bar for bar in bars}
        tenant = self._url.tenant
        async with connection.cursor() as cursor:
            async with cursor.copy(COPY) as copy:
                for bar in bars:
                    await copy.write_row((tenant, *to_row(bar)))

            async def found(sql: str) -> list[Bar]:
                await cursor.execute(sql)
                return [by_key[_key(row)] for row in await cursor.fetchall()]

            newest = await found(INSERT_NEW)
            if len(newest) == len(bars):
                return newest, []
            newest += await found(REPLACE_OLDER)
            if taken := await found(FIND_TAKEN):
                raise bad_bar(taken[0], f"symbol {taken[0].symbol!r} is another instrument's in upper case")
            return newest, await found(FIND_CONFLICTS)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            with self._explaining(writing=False):
                connection = await self._connect()
                try:
                    await connection.execute(CREATE_STAGE)
                    await connection.commit()
                except BaseException:
                    await connection.close()
                    raise
            self._connection = connection
        return self._connection

    async def _connect(self) -> Connection:
        try:
            return await connect(conninfo(self._url.dsn, self._peer.settings))
        except psycopg.OperationalError:
            # libpq gives no code for what went wrong, and says it in the server's language. asyncpg gives one.
            await postgres_session.hang_up(await self._asyncpg(read_only=False))
            raise

    async def _asyncpg(self, *, read_only: bool) -> Any:
        return await postgres_session.connect(
            self._url.dsn, self.name, read_only=read_only, timeout_s=self._timeout_s
        )

    async def _survey(self) -> None:
        connection = await self._asyncpg(read_only=self._read_only)
        try:
            shapes = [TIDEGATE_BARS] if self._read_only else list(self._shapes.values())
            for finding in await survey(connection, shapes, writing=not self._read_only):
                if finding.problem:
                    raise StoreRefused(
                        f"{self.name}: table {finding.table}: {finding.problem}",
                        hint="tidegate store check tells all that is wrong" if finding.exists else INIT,
                    )
        finally:
            await postgres_session.hang_up(connection)

    async def _check_columns(self, connection: Connection) -> None:
        found: dict[str, dict[str, str]] = {name: {} for name in self._shapes}
        cursor = await connection.execute(FIND_COLUMNS, list(self._shapes))
        for table, column, kind in await cursor.fetchall():
            found[str(table)][str(column)] = str(kind)
        for name, columns in found.items():
            if not columns:
                raise StoreRefused(f"{self.name}: its table {name} is gone", hint=f"put it back, or {INIT}")
            if wrong := self._shapes[name].complaints(columns):
                raise StoreRefused(f"{self.name}: table {name}: {wrong}", hint="was it altered?")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()  # at once, and without waiting: who dropped it may be cancelled

    @contextmanager
    def _explaining(self, *, writing: bool = True) -> Iterator[None]:
        try:
            yield
        except TidegateError:
            raise
        except TimeoutError:
            if writing:
                raise  # of the write as a whole, which says so itself
            raise StoreUnavailable(f"{self.name}: no answer in time") from None
        except Exception as error:
            found = explain(error, self.name)
            if isinstance(found, BadBar) and not writing:  # a setting of the session, say
                found = StoreRefused(f"{self.name}: {found}")
            raise found from error


def _key(row: tuple[object, ...]) -> tuple[str, str, int]:
    instrument, kind, start_ns = row
    return str(instrument), str(kind), int(str(start_ns))
