"""What may be written for a store of market-data-store."""

from __future__ import annotations

import sys
from decimal import Decimal

import pytest

from schemas.errors import ConfigError
from streams.store.base import open_store
from streams.store.ecosystem_url import EcosystemUrl, is_ecosystem, parse_ecosystem
from streams.store.psycopg_session import conninfo

TENANT = "3f2c6d0e-9d5d-4d8e-8f3e-0c7c2f6a1b11"


def test_a_url_names_the_database_and_its_own_parameters_stay_with_us() -> None:
    url = parse_ecosystem(
        f"market-data-store+postgresql://u:p@h:5/db?tenant={TENANT.upper()}&sslmode=require&provider=ibkr"
        "&pipeline=eu&volume_unit=0.001&search_path=md"
    )
    assert url == EcosystemUrl(
        "postgresql://u:p@h:5/db?sslmode=require&search_path=md", TENANT, "ibkr", "eu", Decimal("0.001")
    )


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_without_a_url_it_is_the_database_of_market_data_stores_own_variable(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:p@h/db?sslmode=require")
    assert parse_ecosystem("market-data-store").dsn == "postgresql://u:p@h/db?sslmode=require"
    tenants = parse_ecosystem(f"market-data-store?tenant={TENANT}")
    assert (tenants.dsn, tenants.tenant) == ("postgresql://u:p@h/db?sslmode=require", TENANT)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("market-data-store", "DATABASE_URL"),
        ("market-data-store?tenant=x", "DATABASE_URL"),
        ("market-data-store+mysql://h/db", "keeps bars in PostgreSQL"),
        ("market-data-store+duckdb:x", "keeps bars in PostgreSQL"),
        ("market-data-store+postgresql://h/db?tenant=default", "not a UUID"),
        ("market-data-store+postgresql://h/db?volume_unit=0", "volume_unit"),
        ("market-data-store+postgresql://h/db?volume_unit=NaN", "volume_unit"),
        ("market-data-store+postgresql://h/db?volume_unit=lots", "volume_unit"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_a_hint(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigError, match=words) as caught:
        open_store(url)
    assert caught.value.hint


def test_other_stores_are_none_of_it() -> None:
    assert is_ecosystem("market-data-store+postgresql://h/db")
    assert not is_ecosystem("market-data-stores")
    assert not is_ecosystem("postgresql://h/market-data-store")


def test_the_name_of_a_store_hides_the_password() -> None:
    store = open_store("market-data-store+postgresql://u:s3cret@h/db")
    assert store.name == "market-data-store+postgresql://u:***@h/db"


def test_libpq_gets_as_settings_of_the_session_what_it_does_not_know() -> None:
    info = conninfo(
        "postgresql://u:p%40@h:5/db?search_path=a b&connect_timeout=3&options=-cwork_mem%3D8MB",
        {"app.tenant_id": TENANT},
    )
    assert "password=p@" in info
    assert "connect_timeout=3" in info
    assert rf"options='-cwork_mem=8MB -c search_path=a\\ b -c app.tenant_id={TENANT}'" in info


@pytest.mark.parametrize("password", ["s3cret%zz", "s3cret[", "s3cret#"])
def test_a_url_that_libpq_cannot_read_is_an_error_without_the_password(password: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        conninfo(parse_ecosystem(f"market-data-store+postgresql://u:{password}@[h/db").dsn, {})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("query", ["", f"?tenant={TENANT}"])
def test_without_the_extra_the_error_names_it(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("datastore", "mds_client"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match="datastore") as caught:
        open_store(f"market-data-store+postgresql://h/db{query}")
    assert caught.value.hint == "pip install 'tidegate[store]'"
