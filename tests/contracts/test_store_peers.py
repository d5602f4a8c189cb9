"""What is handed to the clients of market-data-store, against the contracts that they publish."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from psycopg.sql import Identifier

from streams.store.ecosystem_tables import BARS_OHLCV, TENANT_BARS
from streams.store.ecosystem_url import EcosystemUrl
from streams.store.health import SinkHealth
from streams.store.market_data_store import OhlcvPeer
from streams.store.peers import load
from streams.store.tenant_bars import TenantPeer
from support.store_contract import START_NS, a_bar

TENANT = "3f2c6d0e-9d5d-4d8e-8f3e-0c7c2f6a1b11"
URL = EcosystemUrl("postgresql://h/db", tenant=TENANT)


@pytest.mark.covers("batch writes")
def test_a_row_is_a_bar_as_the_store_client_wants_it() -> None:
    row = OhlcvPeer(URL).row(a_bar())
    assert isinstance(row, load("datastore").Bar)
    assert tuple(BARS_OHLCV.columns) == row._fields


@pytest.mark.covers("batch writes")
def test_a_row_means_what_cores_runtime_bar_means() -> None:
    runtime = pytest.importorskip("market_data_core.runtime", reason="1.2.9 does not have it")
    row = OhlcvPeer(URL).row(a_bar())
    bar = runtime.Bar(**row._asdict())
    assert int(bar.ts.timestamp()) * 10**9 == START_NS
    assert (bar.provider, bar.symbol, bar.interval) == ("BINANCE", "BTCUSDT", "1m")


@pytest.mark.covers("batch writes")
def test_the_tenants_table_has_the_columns_and_the_key_that_the_client_writes() -> None:
    preset = load("mds_client").TABLE_PRESETS["bars"]
    assert tuple(TENANT_BARS.columns) == preset.cols
    assert TENANT_BARS.key == preset.conflict
    row = TenantPeer(URL).row(a_bar(volume="3")).model_dump()
    assert set(preset.cols) <= row.keys()
    assert None not in row.values()  # AMDS leaves out what is None, and its statement then lacks a parameter


@pytest.mark.covers("sink health")
def test_sink_health_has_the_fields_of_the_pipelines() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(SinkHealth)}
    assert fields == {  # market_data_pipeline 0.8.70, sink/capabilities.py
        "connected": dataclasses.MISSING,
        "queue_depth": 0,
        "in_flight_batches": 0,
        "last_commit_at": None,
        "last_error_at": None,
        "retry_count": 0,
        "detail": "",
    }


class TestWhatTheClientsAreWorkedAroundFor:
    """A fault that is mended there shows here, and what works around it can go."""

    def test_a_client_cannot_be_given_a_connection(self) -> None:
        assert list(inspect.signature(load("datastore").AsyncStoreClient).parameters) == [
            "uri",
            "batch_threshold",
        ]
        assert OhlcvPeer(URL)._client._conn is None

    def test_amds_copies_by_what_psycopg_does_not_have(self) -> None:
        assert "temp.string" in inspect.getsource(load("mds_client").AMDS._upsert)
        assert not hasattr(Identifier("x"), "string")

    def test_volume_is_a_whole_number(self) -> None:
        row: dict[str, Any] = TenantPeer(URL).row(a_bar(volume="3")).model_dump()
        with pytest.raises(ValueError, match="fractional part"):
            load("mds_client").Bar(**row | {"volume": 1.5})
