"""The table bars of market-data-store's tenants, written by its published `AsyncBatchProcessor` and `AMDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Context, Decimal
from typing import Any

from schemas.bar import Bar
from schemas.fixed import shorten
from schemas.idempotency import idempotency_key
from streams.store.ecosystem_tables import TENANT_BARS
from streams.store.ecosystem_url import EcosystemUrl
from streams.store.fit import bad_bar
from streams.store.market_data_store import provider_of, start_of, upper_symbol
from streams.store.peers import load
from streams.store.psycopg_session import Connection

_NEVER = 10**12
"""The processor writes by itself after so many rows, bytes or milliseconds: we say when."""
BIGINT_MAX = 2**63 - 1
_exact = Context(prec=200)


class TenantPeer:
    """As `Peer`. `ts` is the start of the window, volume a whole number of `volume_unit`."""

    shape = TENANT_BARS

    def __init__(self, url: EcosystemUrl) -> None:
        self.settings = {"app.tenant_id": url.tenant}
        self._url = url
        self._mds = load("mds_client")
        # Setting app_name or statement_timeout_ms would break its SQL, and its COPY calls what psycopg lacks.
        self._amds = self._mds.AMDS(
            {"dsn": url.dsn, "tenant_id": url.tenant, "write_mode": "executemany", "pool_max": 4}
        )
        self._config = self._mds.BatchConfig(max_rows=_NEVER, max_ms=_NEVER, max_bytes=_NEVER)

    def row(self, bar: Bar) -> Any:
        return self._mds.Bar(
            tenant_id=self._url.tenant,
            vendor=provider_of(bar, self._url.provider),
            symbol=upper_symbol(bar),
            timeframe=bar.type,
            ts=start_of(bar),
            open_price=float(bar.open),
            high_price=float(bar.high),
            low_price=float(bar.low),
            close_price=float(bar.close),
            volume=self._volume(bar),
            id=idempotency_key(bar, tenant=self._url.tenant, pipeline=self._url.pipeline),
        )

    async def write(self, connection: Connection, rows: list[Any]) -> None:
        self._amds.pool = _Lent(connection)
        # A new one each time: after an error it would write what it holds again, whatever became of it.
        processor = self._mds.AsyncBatchProcessor(self._amds, self._config)
        for row in rows:
            await processor.add_bar(row)
        await processor.flush()

    def _volume(self, bar: Bar) -> int:
        unit = self._url.volume_unit
        whole, rest = _exact.divmod(Decimal(bar.volume), unit)
        if rest:
            raise bad_bar(
                bar,
                f"volume {shorten(bar.volume)} is no multiple of {unit}, and the table takes whole numbers: "
                "set ?volume_unit=, 0.00000001 for instance",
            )
        if whole > BIGINT_MAX:
            raise bad_bar(bar, f"volume {shorten(bar.volume)} in units of {unit} does not fit 64 bits")
        return int(whole)


class _Lent:
    """Stands where AMDS has its pool: it writes with our connection, in our transaction, and commits it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open(self, **wait: Any) -> None:
        """It is open."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        yield self._connection
