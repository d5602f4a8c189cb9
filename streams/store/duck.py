"""Bars in a DuckDB file, which one process has open.

The table has no index. A primary key would cost 85 bytes a bar in the file and a third of the speed of
inserts; MERGE finds rows as fast without one, as it reads only those parts of the table whose minimum and
maximum allow the starts of the batch. The key stays unique because all writing is done by one thread of the
one process that has the file.

DECIMAL ends at 38 digits and a turnover needs up to 96, so sums are text: exact, and DuckDB refuses to add or
compare text by mistake. For SQL, the view `bars_numeric` has them as DECIMAL(38, 18), rounded there, and an
error where one does not fit; `exact_sum(turnover)` adds up the text exactly, at any size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import duckdb

from schemas.bar import Bar
from schemas.errors import BadBar, StoreError, StoreRefused
from streams.store.base import BarQuery, WriteResult
from streams.store.duck_errors import explain, explain_open, in_use, may_open
from streams.store.duck_sql import CREATE, FIND_COLUMNS, FIND_CONFLICTS, MERGE, TYPES, select, staged
from streams.store.fit import fitted, named
from streams.store.table import Row, complaints, to_bar
from streams.store.versions import conflicting, key_of, rounds

P = ParamSpec("P")
T = TypeVar("T")

READ_ROWS = 5_000
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,  # DuckDB downloads code when it meets a file of SQLite's, say
    "checkpoint_threshold": "64MB",  # a sixth faster than with 16MB, and read back in 0.3 s after a crash
}
QUIET = "SET enable_progress_bar = false"
"""DuckDB writes to stdout when a statement takes long in what it believes to be a session of a person."""

_files_of_this_process: set[Path] = set()


class DuckStore:
    """A `Store` in a file, or in memory; one thread of its own does all the work."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.name = f"duckdb:{path}"
        self._path = None if path == ":memory:" else Path(path).expanduser().resolve()
        self._read_only = read_only
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._inode = 0

    async def open(self) -> None:
        """As `Store.open`; raises StoreInUse when another process has the file."""
        await self._run(self._connected)

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        """As `Store.write`."""
        try:
            return await self._run(self._write, bars)
        except BadBar as error:
            raise named(error, bars) from error

    async def read(self, query: BarQuery) -> AsyncIterator[list[Bar]]:
        """As `Store.read`; sees what was committed when it began, and writing goes on meanwhile."""
        cursor = await self._run(self._select, query)
        try:
            while rows := await self._run(self._fetch, cursor):
                yield [to_bar(row) for row in rows]
        finally:
            await self._run(cursor.close)

    async def close(self) -> None:
        """As `Store.close`; waits for a write in progress."""
        if self._thread is not None:
            await self._run(self._disconnect)
            thread, self._thread = self._thread, None
            thread.shutdown(wait=False)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # A thread of our own, not asyncio.to_thread: a write that was cancelled still runs, and the next
        # use of the connection must wait for it.
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="duckdb")
        call = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _write(self, bars: Sequence[Bar]) -> WriteResult:
        self._check_file()
        connection = self._connected()
        rows = fitted(bars)
        written, refused = 0, list[Bar]()
        try:
            connection.begin()
            for some in rounds(rows):
                count, conflicts = _merge(connection, some)
                written += count
                refused += conflicts
            connection.commit()
        except Exception as error:
            self._recover(connection)
            raise explain(error, self.name) from error
        conflicts = conflicting(bars, refused)
        return WriteResult(written, len(bars) - written - len(conflicts), conflicts)

    def _recover(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.rollback()
            connection.execute("SELECT 1")
        except duckdb.Error:  # after a failed commit DuckDB wants the file to be opened anew
            self._disconnect()

    def _select(self, query: BarQuery) -> duckdb.DuckDBPyConnection:
        cursor = self._connected().cursor()
        try:
            return cursor.execute(*select(query))
        except duckdb.Error as error:
            raise explain(error, self.name) from error

    def _fetch(self, cursor: duckdb.DuckDBPyConnection) -> list[Row]:
        try:
            return cursor.fetchmany(READ_ROWS)
        except duckdb.Error as error:
            raise explain(error, self.name) from error

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = self._connect()
            try:
                self._prepare(self._connection)
            except duckdb.Error as error:
                self._disconnect()
                raise explain(error, self.name) from error
            except StoreError:
                self._disconnect()
                raise
        return self._connection

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._path is None:
            return duckdb.connect(config=CONFIG)
        if self._path in _files_of_this_process:
            raise in_use(self.name, "this process")
        new = not self._path.exists()
        try:
            if not may_open(self._path, read_only=self._read_only):
                raise duckdb.IOException("permission denied")
            connection = duckdb.connect(self._path, read_only=self._read_only, config=CONFIG)
        except duckdb.Error as error:
            found = explain_open(error, self.name, self._path, read_only=self._read_only)
            if new and found.retriable:  # the disk is full: what could be written of it can never be opened
                self._path.unlink(missing_ok=True)
            raise found from error
        _files_of_this_process.add(self._path)
        self._inode = self._path.stat().st_ino
        return connection

    def _check_file(self) -> None:
        # What is written into a file that somebody has deleted is gone with the last process that has it open.
        if self._connection is None or self._path is None:
            return
        if not self._path.exists() or self._path.stat().st_ino != self._inode:
            self._disconnect()
            raise StoreRefused(
                f"{self.name}: the file was deleted or replaced", hint="the next write opens what is there"
            )

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(QUIET)
        connection.begin()
        found = dict(connection.execute(FIND_COLUMNS).fetchall())
        if not found and not self._read_only:
            connection.execute(CREATE)
        elif not found:
            raise StoreRefused(f"{self.name}: holds no bars", hint="is the path right?")
        elif wrong := complaints(found, TYPES):
            raise StoreRefused(
                f"{self.name}: its table bars is not Tidegate's: {wrong}", hint="name another file for bars"
            )
        connection.commit()

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(duckdb.Error):  # what is committed is in the log beside the file
                connection.close()
            if self._path is not None:
                _files_of_this_process.discard(self._path)


def _merge(connection: duckdb.DuckDBPyConnection, bars: list[Bar]) -> tuple[int, list[Bar]]:
    """How many bars were written, and which were not as their row has another source."""
    starts: dict[str, list[int]] = {}
    for bar in bars:
        starts.setdefault(bar.type, []).append(bar.start_ns)
    connection.register("staged", staged(bars))
    written, conflicts = 0, list[Bar]()
    for bar_type, some in starts.items():
        span = {"first": int(min(some)), "last": int(max(some))}
        args = {"type": bar_type}
        row = connection.execute(MERGE.format(**span), args).fetchone()
        count = int(row[0]) if row else 0
        if count < len(some):
            found = connection.execute(FIND_CONFLICTS.format(**span), args).fetchall()
            by_key = {key_of(bar): bar for bar in bars}
            conflicts += [by_key[key] for key in found]
        written += count
    connection.unregister("staged")
    return written, conflicts
