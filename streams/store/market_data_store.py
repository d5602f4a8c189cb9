"""The table bars_ohlcv of market-data-store, written by its published `AsyncStoreClient`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from schemas.bar import Bar
from streams.store.ecosystem_tables import BARS_OHLCV
from streams.store.ecosystem_url import EcosystemUrl
from streams.store.fit import bad_bar
from streams.store.peers import load
from streams.store.psycopg_session import Connection

COPY_ROWS = 1_000
"""From so many bars on the client copies them, as it does by default; before, it upserts them one by one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OhlcvRow(NamedTuple):
    """What `datastore.Bar`, a protocol, and `market_data_core.runtime.Bar` have in common."""

    provider: str
    symbol: str
    interval: str
    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


class OhlcvPeer:
    """As `Peer`. `ts` is the start of the window; numbers are the nearest ones of 53 bits."""

    shape = BARS_OHLCV

    def __init__(self, url: EcosystemUrl) -> None:
        self.settings: dict[str, str] = {}
        self._url = url
        self._client = load("datastore").AsyncStoreClient(url.dsn, batch_threshold=COPY_ROWS)

    def row(self, bar: Bar) -> OhlcvRow:
        return OhlcvRow(
            provider_of(bar, self._url.provider),
            upper_symbol(bar),
            bar.type,
            start_of(bar),
            *map(float, (bar.open, bar.high, bar.low, bar.close, bar.volume)),
        )

    async def write(self, connection: Connection, rows: list[Any]) -> None:
        # The client can only connect by itself, as a context manager; it keeps the connection here.
        self._client._conn = connection
        # One batch a call: its second COPY in a transaction would make its temporary table a second time.
        await self._client.write_bars(rows, batch_size=len(rows))


def provider_of(bar: Bar, default: str) -> str:
    """The bar's venue, which the ecosystem calls provider or vendor; `default` where it has none."""
    if bar.venue == default:
        raise bad_bar(bar, f"venue {default!r} is what bars without a venue are stored under: set ?provider=")
    return bar.venue or default


def upper_symbol(bar: Bar) -> str:
    """The symbol in upper case, as the tables of the ecosystem want it."""
    upper = bar.symbol.upper()
    if upper != bar.symbol and not bar.symbol.isascii():
        # What upper case is beyond ASCII depends on the server's locale: two symbols might become one.
        raise bad_bar(bar, f"symbol {bar.symbol!r} is not in upper case")
    return upper


def start_of(bar: Bar) -> datetime:
    """The start of the window: runtime.Bar and the pipeline mean it by ts, core's own Bar means the end."""
    return _EPOCH + timedelta(seconds=bar.start_ns // 10**9)
