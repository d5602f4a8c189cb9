"""What PostgreSQL's errors are for the rest of Tidegate."""

from __future__ import annotations

import socket
import ssl

import asyncpg
import pytest

from schemas.errors import BadBar, StoreError, StoreRefused, StoreTooSlow, StoreUnavailable
from streams.store.postgres_errors import explain

URL = "postgresql://u:***@h/db"


def _of_server(kind: type[Exception], message: str = "refused", **details: str) -> Exception:
    error = kind(message)
    vars(error).update(details)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("[Errno 111] Connect call failed ('127.0.0.1', 5432)"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"),
        ConnectionResetError("reset"),
        TimeoutError(),
        socket.gaierror(-2, "Name or service not known"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.CrashShutdownError("crash"),
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        asyncpg.DeadlockDetectedError("deadlock detected"),
        asyncpg.SerializationError("could not serialize access"),
        asyncpg.LockNotAvailableError("lock"),
        asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
        asyncpg.DiskFullError("could not extend file: No space left on device"),
        asyncpg.OutOfMemoryError("out of memory"),
        asyncpg.PostgresIOError("could not read block"),
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
        asyncpg.exceptions.TargetServerAttributeNotMatched("none of the hosts"),
        ssl.SSLEOFError("EOF occurred in violation of protocol"),
    ],
)
def test_what_passes_is_retriable(error: Exception) -> None:
    found = explain(error, URL)
    assert isinstance(found, StoreUnavailable)
    assert str(found).startswith(f"{URL}: ")


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (asyncpg.InvalidPasswordError('password authentication failed for user "u"'), "password"),
        (asyncpg.InvalidAuthorizationSpecificationError("no pg_hba.conf entry"), "pg_hba.conf"),
        (asyncpg.InvalidCatalogNameError('database "db" does not exist'), "create the database"),
        (asyncpg.InvalidSchemaNameError("no schema has been selected to create in"), "search_path"),
        (asyncpg.InsufficientPrivilegeError("permission denied for schema public"), "grant"),
        (asyncpg.UndefinedTableError('relation "bars" does not exist'), "dropped"),
        (asyncpg.UndefinedColumnError('column "x" does not exist'), "altered"),
        (ssl.SSLCertVerificationError("certificate verify failed"), "sslrootcert"),
        (ConnectionError('PostgreSQL server at "h:5432" rejected SSL upgrade'), "sslmode"),
        (_of_server(asyncpg.NotNullViolationError, column_name="mine"), "default"),
        (_of_server(asyncpg.CheckViolationError, "no partition of relation found for row"), "partition"),
    ],
)
def test_what_needs_people_is_not_and_says_what_to_do(error: Exception, hint: str) -> None:
    found = explain(error, URL)
    assert isinstance(found, StoreRefused)
    assert not found.retriable
    assert hint in found.hint


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.NumericValueOutOfRangeError("value overflows numeric format"),
        asyncpg.CharacterNotInRepertoireError("invalid byte sequence"),
        asyncpg.CheckViolationError("violates check constraint"),
        asyncpg.ProgramLimitExceededError("index row size exceeds maximum"),
        asyncpg.RaiseError("says a trigger"),
        asyncpg.ForeignKeyViolationError("violates foreign key constraint"),
        _of_server(asyncpg.NotNullViolationError, column_name="vwap"),
        _of_server(asyncpg.CheckViolationError, "of partition bars_1", constraint_name="mine"),
        asyncpg.DataError("value out of int64 range"),
        OverflowError("too large"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
)
def test_what_a_row_is_refused_for_is_a_bad_bar(error: Exception) -> None:
    assert isinstance(explain(error, URL), BadBar)


@pytest.mark.parametrize(
    "error", [asyncpg.QueryCanceledError("statement timeout"), asyncpg.OutOfMemoryError("out of memory")]
)
def test_what_fewer_bars_may_get_through_is_too_slow(error: Exception) -> None:
    assert isinstance(explain(error, URL), StoreTooSlow)


def test_a_bug_is_not_taken_for_a_bad_bar() -> None:
    found = explain(TypeError("expected str, got int"), URL)
    assert type(found) is StoreError
    assert "TypeError" in str(found)
