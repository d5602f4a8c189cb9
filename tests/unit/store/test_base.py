"""Which store a URL opens, and what of it people may see."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from streams.store.base import open_store, redact

SECRET = "s3cr/et#:p@ss&word"  # noqa: S105 - of nobody
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bars.duckdb",
        "sqlite:bars.db",
        "mysql://h/db",
        "postgresql:db",
        "postgresql+asyncpg://h/db",
        "DUCKDB:x",
    ],
)
def test_an_unknown_store_is_refused_with_those_there_are(url: str) -> None:
    with pytest.raises(ConfigError, match="no store is known") as caught:
        open_store(url)
    assert "duckdb:PATH" in caught.value.hint
    assert "postgresql://" in caught.value.hint


@pytest.mark.parametrize("url", ["duckdb:", "duckdb://", "duckdb://bars.duckdb", "duckdb:////"])
def test_a_duckdb_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        open_store(url)


async def _open_and_close(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.close()


def test_paths_are_relative_absolute_or_of_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("duckdb:1.db", f"duckdb:{tmp_path}/2.db", f"duckdb://{tmp_path}/3.db", "duckdb:~/4.db"):
        asyncio.run(_open_and_close(url))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.db", "2.db", "3.db", "4.db"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@h:5432/db", "postgresql://u:***@h:5432/db"),
        (f"postgres://u:{SECRET}@h/db?sslmode=require", "postgres://u:***@h/db?sslmode=require"),
        ("postgresql://:pw@h/db", "postgresql://:***@h/db"),
        (
            "postgresql://h/db?user=u&password=pw&sslmode=require",
            "postgresql://h/db?user=u&password=***&sslmode=require",
        ),
        ("postgresql://h/db?sslpassword=pw", "postgresql://h/db?sslpassword=***"),
        ("postgresql://u@h:5432/db", "postgresql://u@h:5432/db"),
        ("postgresql://h1:5432,h2:5433/db", "postgresql://h1:5432,h2:5433/db"),
        ("duckdb:bars.duckdb", "duckdb:bars.duckdb"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_an_unknown_store_does_not_tell_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(f"mysql://u:{SECRET}@h/db")
    assert SECRET not in str(caught.value)


async def test_a_url_that_cannot_be_read_is_refused_without_quoting_its_password() -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        await open_store(f"postgresql://u:{SECRET}@127.0.0.1:1/db").open()
    assert "percent-encode" in caught.value.hint
    told = "".join(traceback.format_exception(caught.value))
    assert not [part for part in ("s3cr", "et#", "p@ss&") if part in told]


def test_databases_are_imported_only_where_they_are_used() -> None:
    heavy = "{'duckdb', 'pyarrow', 'asyncpg'} & set(sys.modules)"
    code = (
        "import sys\nfrom streams.store.base import open_store\n"
        f"assert not {heavy}\nopen_store('duckdb:x')\nassert {heavy} == {{'duckdb', 'pyarrow'}}"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
