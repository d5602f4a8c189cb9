"""What PostgreSQL's errors mean, and what to do about them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

import asyncpg

from schemas.errors import BadBar, ConfigError, StoreError, StoreRefused, StoreTooSlow, StoreUnavailable
from streams.store.table import COLUMNS

_RETRIABLE = {
    "08": "the connection broke",
    "25006": "it is read-only: a standby, or being promoted",
    "40": "another transaction was in the way",
    "53": "it is out of resources",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "53300": "it has too many connections",
    "55P03": "a lock was not to be had",
    "57014": "it cancelled the statement",
    "57P": "it is starting up or shutting down",
    "58030": "it cannot read or write its disk",
}
"""By the beginning of SQLSTATE; the longest counts."""
_HINTS = {
    "23502": "a column of your own needs a default",
    "23514": "make the partition, or a default one",
    "28": "check user, password and pg_hba.conf; a worker learns another password only by a restart",
    "3D000": "create the database, or name another one in the URL",
    "3F000": "create the schema that search_path names",
    "42501": "grant it to the user of the URL, or let a worker of a user who has it make the table once",
    "42703": "was the table bars altered?",
    "42P01": "was the table bars dropped, or does a pooler in between share connections?",
    "53100": "free some space: a worker then goes on by itself, a run must be repeated",
    "53300": "raise max_connections, or run fewer workers",
}
_REFUSALS = ("21", "22", "23", "54", "P0")
"""Classes of SQLSTATE for which a row is refused: cardinality, data, constraints, limits, triggers that raise."""
_TOO_SLOW = ("53200", "57014")
"""Out of memory, and a statement_timeout: fewer rows may pass."""


def explain(error: Exception, name: str) -> StoreError:
    """Why a call failed. A BadBar among the answers names no bar yet."""
    if isinstance(error, asyncpg.PostgresError):
        return _explain_server(error, name)
    text = _line(error)
    match error:
        case UnicodeEncodeError() | OverflowError():
            return BadBar(text)
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return StoreUnavailable(f"{name}: the connection broke: {text}")
        case ssl.SSLError():
            return StoreRefused(f"{name}: TLS failed: {text}", hint="check sslmode and sslrootcert")
        case ConnectionError() if "SSL upgrade" in text:
            return StoreRefused(
                f"{name}: the server speaks no TLS", hint="leave out sslmode, or set up TLS there"
            )
        case socket.gaierror():
            return StoreUnavailable(f"{name}: the host is not found", hint="is its name right?")
        case TimeoutError():
            return StoreUnavailable(f"{name}: no answer in time", hint="is a firewall in between?")
        case OSError() if isinstance(error, ConnectionRefusedError) or "Connect call failed" in text:
            return StoreUnavailable(
                f"{name}: connection refused", hint="is PostgreSQL running, and are host and port right?"
            )
        case OSError() | asyncpg.exceptions.TargetServerAttributeNotMatched():
            return StoreUnavailable(f"{name}: {text}")
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return StoreUnavailable(f"{name}: the connection broke: {text}")
    return StoreError(f"{name}: {type(error).__name__}: {text}")


def unreadable_url(name: str) -> ConfigError:
    """The error for a URL that the driver cannot read; its own words may quote a part of the password."""
    return ConfigError(
        f"{name}: this URL cannot be read",
        hint="percent-encode special characters of the password: @ is %40, / is %2F, # is %23",
    )


def _explain_server(error: asyncpg.PostgresError, name: str) -> StoreError:
    text, state = _line(error), str(error.sqlstate or "")
    hint = _longest(_HINTS, state) or ""
    if state.startswith(_REFUSALS) and not _by_the_table(error, state):
        return BadBar(text)
    if why := _longest(_RETRIABLE, state):
        kind = StoreTooSlow if state in _TOO_SLOW else StoreUnavailable
        return kind(f"{name}: {why}: {text}", hint=hint)
    return StoreRefused(f"{name}: {text}", hint=hint)


def _by_the_table(error: asyncpg.PostgresError, state: str) -> bool:
    """Whether every bar would be refused: a column that no bar has, a partition that nobody has made."""
    if state == "23502":
        return getattr(error, "column_name", None) not in (None, *COLUMNS)
    return state == "23514" and not getattr(error, "constraint_name", None) and "partition" in str(error)


def _longest(table: Mapping[str, str], state: str) -> str | None:
    return next((table[state[:n]] for n in range(len(state), 0, -1) if state[:n] in table), None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
