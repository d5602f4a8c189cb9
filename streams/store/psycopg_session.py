"""Connections by psycopg, the driver of market-data-store, from the URLs that asyncpg takes."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

import asyncpg
import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from schemas.errors import BadBar, StoreError, StoreUnavailable
from streams.store import postgres_errors
from streams.store.base import redact
from streams.store.postgres_session import CLEANUP_TIMEOUT_S, CONNECT_TIMEOUT_S
from streams.store.postgres_sql import SESSION

Connection = psycopg.AsyncConnection[tuple[object, ...]]

_DEFAULTS = {
    "application_name": "tidegate",
    "connect_timeout": str(int(CONNECT_TIMEOUT_S)),
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""A peer that vanished without a word is noticed in half a minute, as in the PostgreSQL store."""


def conninfo(dsn: str, settings: dict[str, str]) -> str:
    """What libpq takes; parameters that it does not know are settings of the session, as they are for asyncpg.

    Raises ConfigError for a URL that it cannot read.
    """
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    base, _, query = dsn.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    session = {name: value for name, value in given.items() if name not in known} | settings
    params = _DEFAULTS | {name: value for name, value in given.items() if name in known}
    options = [f"-c {name}={_escaped(value)}" for name, value in session.items()]
    if options:
        params["options"] = " ".join(filter(None, (params.get("options"), *options)))
    try:
        return make_conninfo(base, **params)
    except psycopg.ProgrammingError:
        raise postgres_errors.unreadable_url(redact(dsn)) from None


async def connect(info: str) -> Connection:
    """A connection outside of any transaction; the first statement begins one."""
    connection: Connection = await psycopg.AsyncConnection.connect(info)
    try:
        await connection.set_autocommit(True)
        await connection.execute(SESSION)  # several statements at once, which takes no parameters
        await connection.set_autocommit(False)
    except BaseException:
        await connection.close()
        raise
    return connection


async def roll_back(connection: Connection) -> bool:
    """End the transaction without a trace; gives whether the connection is of use afterwards."""
    try:
        async with asyncio.timeout(CLEANUP_TIMEOUT_S):
            await connection.rollback()
    except (psycopg.Error, TimeoutError):
        return False
    return not connection.closed


def explain(error: Exception, name: str) -> StoreError:
    """Why a call failed. A BadBar among the answers names no bar yet."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        # What a SQLSTATE means is said in one place, for both drivers.
        told = {
            "S": error.diag.severity or "ERROR",
            "C": error.sqlstate,
            "M": error.diag.message_primary or str(error),
            "c": error.diag.column_name,
            "n": error.diag.constraint_name,
        }
        return postgres_errors.explain(
            asyncpg.PostgresError.new({key: value for key, value in told.items() if value}), name
        )
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case psycopg.DataError():  # found out by the driver: a NUL byte, say
            return BadBar(text)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return StoreUnavailable(f"{name}: the connection broke: {text}")
    return postgres_errors.explain(error, name)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
