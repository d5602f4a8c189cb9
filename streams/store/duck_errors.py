"""What DuckDB's errors mean, and what to do about them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import duckdb
import pyarrow as pa

from schemas.errors import BadBar, StoreError, StoreInUse, StoreRefused, StoreTooSlow, StoreUnavailable

ONE_PROCESS = (
    "one process at a time opens a DuckDB file: stop the other one, or keep bars in PostgreSQL, "
    "which serves several workers and readers at once"
)
_FULL = re.compile(r"No space left|File too large|quota exceeded|max_temp_directory_size", re.IGNORECASE)
_DAMAGED = re.compile("corrupt|checksum", re.IGNORECASE)
_REFUSALS = (
    duckdb.ConstraintException,
    duckdb.DataError,
    pa.ArrowInvalid,
    OverflowError,
    UnicodeEncodeError,
)
"""While a batch is written: some bar in it is not what the table takes."""


def explain_open(error: duckdb.Error, name: str, path: Path, *, read_only: bool) -> StoreError:
    """Why a file could not be opened."""
    text = _text(error)
    if "Conflicting lock" in text or "different configuration" in text:
        return in_use(name, _holder(text))
    if read_only and not path.exists():
        return StoreRefused(f"no such store: {name}", hint="is the path right? a worker makes it")
    if path.is_dir():
        return StoreRefused(f"{name}: is a directory", hint="name a file in it")
    if not path.parent.is_dir():
        return StoreRefused(f"{name}: there is no directory {path.parent}", hint="make it, or name another")
    if not may_open(path, read_only=read_only):
        who = "is not readable" if read_only else "cannot be written, or its directory cannot"
        return StoreRefused(f"{name}: {who}", hint="check owner, permissions and mount options")
    if path.exists() and not _is_duckdb(path):
        return StoreRefused(f"{name}: is not a DuckDB file", hint="name another path; it was left as it is")
    found = explain(error, name)
    if found.retriable and not _FULL.search(text):
        return StoreRefused(str(found), hint="is the file damaged, or its disk?")
    return found


def may_open(path: Path, *, read_only: bool) -> bool:
    """Whether permissions and mounts allow it; a writer makes a second file beside this one."""
    if read_only:
        return os.access(path, os.R_OK)
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.R_OK | os.W_OK))


def in_use(name: str, who: str) -> StoreInUse:
    """The error for a file that is open elsewhere."""
    return StoreInUse(f"{name}: {who} has it open", hint=ONE_PROCESS)


def explain(error: Exception, name: str) -> StoreError:
    """Why a statement failed. A BadBar among the answers names no bar yet."""
    text = _text(error)
    if _FULL.search(text):
        return StoreUnavailable(
            f"{name}: the disk is full ({text})",
            hint="free some space: a worker then goes on by itself, a run must be repeated",
        )
    if isinstance(error, duckdb.SerializationException) or _DAMAGED.search(text):
        return StoreError(f"{name}: the file is damaged: {text}", hint="restore it, or name another path")
    match error:
        case duckdb.OutOfMemoryException():
            return StoreTooSlow(f"{name}: out of memory: {text}", hint="write smaller batches")
        case duckdb.IOException() | duckdb.FatalException() | duckdb.TransactionException():
            return StoreUnavailable(f"{name}: {text}")
        case duckdb.CatalogException() | duckdb.BinderException():
            return StoreRefused(f"{name}: {text}", hint="was the table bars altered or dropped?")
        case _ if isinstance(error, _REFUSALS):
            return BadBar(text)
    return StoreError(f"{name}: {text}")


def _holder(text: str) -> str:
    """Who holds the lock, where DuckDB can tell: `held in /usr/bin/python3.11 (PID 4711)`."""
    found = re.search(r"held in (?:(\S+) )?\(?PID (\d+)", text)
    if found is None:
        return "another process"
    return f"process {found[2]} ({found[1]})" if found[1] else f"process {found[2]}"


def _is_duckdb(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def _text(error: Exception) -> str:
    """DuckDB's message as one line, without its picture of the statement."""
    return " ".join(str(error).split("\n\n")[0].split())
