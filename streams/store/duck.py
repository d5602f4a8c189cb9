"""Bars in a DuckDB file, which one process has open.

The table has no index. A primary key would cost 85 bytes a bar in the file and a third of the speed of
inserts; rows are found as fast without one, as only those parts of the table are read whose minimum and
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
from typing import Any, ParamSpec, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from schemas.bar import Bar
from schemas.errors import BadBar, StoreError, StoreRefused
from streams.store.base import BarQuery, WriteResult
from streams.store.duck_errors import explain, explain_open, in_use, may_open
from streams.store.duck_sql import (
    CREATE,
    FIND,
    FIND_COLUMNS,
    INSERT,
    INSERT_SOME,
    TYPES,
    UPDATE,
    select,
    staged,
)
from streams.store.fit import fitted, named
from streams.store.table import Row, complaints, to_bar
from streams.store.versions import conflicting, rounds

P = ParamSpec("P")
T = TypeVar("T")

READ_ROWS = 5_000
_FOUND = ("n", "row", "same", "newer")
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,  # DuckDB downloads code when it meets a file of SQLite's, say
    "threads": 1,  # a batch is less than what is worth sharing: a second thread takes time, and gives none
    "checkpoint_threshold": "64MB",  # a sixth faster than with 16MB, and read back in 0.3 s after a crash
}
READING = {name: value for name, value in CONFIG.items() if name != "threads"}
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
            for name in ("staged", "fresh", "changed"):
                connection.unregister(name)
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
        config = READING if self._read_only else CONFIG
        if self._path is None:
            return duckdb.connect(config=config)
        if self._path in _files_of_this_process:
            raise in_use(self.name, "this process")
        new = not self._path.exists()
        try:
            if not may_open(self._path, read_only=self._read_only):
                raise duckdb.IOException("permission denied")
            connection = duckdb.connect(self._path, read_only=self._read_only, config=config)
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
    table = staged(bars).append_column("n", pa.array(np.arange(len(bars))))
    connection.register("staged", table)
    starts: dict[str, list[int]] = {}
    for bar in bars:
        starts.setdefault(bar.type, []).append(bar.start_ns)
    found = [
        connection.execute(FIND.format(**_span(some)), {"type": bar_type}).fetchnumpy()
        for bar_type, some in starts.items()
    ]
    at, rows, same, newer = (np.concatenate([one[name] for one in found]) for name in _FOUND)
    written = 0
    # To register a table takes a while for each of its columns: here they are one or two.
    if not len(at):
        written += _count(connection, INSERT)
    elif len(at) < len(bars):
        fresh = np.ones(len(bars), dtype=bool)
        fresh[at] = False
        connection.register("fresh", pa.table({"n": np.flatnonzero(fresh)}))
        written += _count(connection, INSERT_SOME)
    changed = same & newer
    if changed.any():
        connection.register("changed", pa.table({"n": at[changed], "row": rows[changed]}))
        written += _count(connection, UPDATE.format(**_span(table["start_ns"].to_numpy()[at[changed]])))
    return written, [bars[n] for n in at[~same]]


def _span(starts_ns: Any) -> dict[str, int]:
    return {"first": int(np.min(starts_ns)), "last": int(np.max(starts_ns))}


def _count(connection: duckdb.DuckDBPyConnection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0
