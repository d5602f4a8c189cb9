"""What a store is, whatever database is behind it.

store = open_store("duckdb:bars.duckdb")
await store.open()
result = await store.write(bars)
async for some in store.read(BarQuery(symbol="BTCUSDT", type="1m")):
    print(some)
await store.close()
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.bar import Bar
from schemas.errors import ConfigError
from streams.store.ecosystem_url import SCHEME, is_ecosystem, parse_ecosystem
from streams.store.peers import load

SCHEMES = (
    "duckdb:PATH, postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
    "market-data-store+postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the bars of one `write`: written + stale + len(conflicts) is their number."""

    written: int
    """Rows that are new or that changed."""
    stale: int
    """The store, or the same batch, held as new a version or a newer one."""
    conflicts: list[Bar]
    """Not written: the row's ticks came from another partition. The very objects that were given."""


@dataclass(frozen=True, slots=True)
class BarQuery:
    """Which bars to read; what is None does not restrict."""

    symbol: str | None = None
    type: str | None = None
    start_ns: int | None = None
    """The first start of a bar, inclusive."""
    end_ns: int | None = None
    """The last start of a bar, exclusive."""
    venue: str | None = None
    """The empty string means bars without a venue."""
    final: bool | None = None
    newest: int | None = None
    """Only the newest so many by start; their order remains ascending."""


class Store(Protocol):
    """Keeps the newest version of every bar, in a table `bars`.

    Contract: the key is (instrument, type, start_ns), and of two versions the one with the higher
    (last_offset, revision, final) stays, so that writing anything again changes nothing. A row keeps its
    source: a version from another source_topic[source_partition] is a conflict and is not written. `write` is
    one transaction, all or nothing, and gives the result of writing its bars one after the other.

    Errors are StoreError; where `retriable` is true the same call may succeed later, also when a commit was
    cut off and nobody knows its outcome. `open` and `write` connect anew after an error. BadBar says that some
    bar of the batch is refused, and names it where the database does: always when there is only one.
    StoreTooSlow says that fewer bars may pass. Numbers are exact, and read back in plain notation. A table that
    was there and is gone is made again by `open` of another start only: until then it is StoreRefused.
    """

    name: str
    """The URL, without its password."""

    async def open(self) -> None:
        """Connect, make the table where there is none, and check that it can be written; may be repeated."""

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        """Write the bars in one transaction."""

    def read(self, query: BarQuery) -> AsyncIterator[list[Bar]]:
        """The bars of one moment, in order of (symbol, type, start_ns, instrument), some at a time."""

    async def close(self) -> None:
        """Disconnect; may be repeated."""


def open_store(url: str, *, read_only: bool = False, timeout_s: float = 300.0) -> Store:
    """The store behind a URL, not connected yet; `read_only` makes nothing that is not there.

    A write over the network that takes longer than `timeout_s` is given up: StoreTooSlow.

    `duckdb:PATH` (also `duckdb:///absolute/path` and `duckdb::memory:`), `postgresql://...` or
    `postgres://...` with what asyncpg reads, such as `?sslmode=require` or `?search_path=SCHEMA`, and
    `market-data-store+postgresql://...`, or `market-data-store` for the database that DATABASE_URL names.
    Raises ConfigError for others.
    """
    if is_ecosystem(url):
        return _open_ecosystem(url, read_only=read_only, timeout_s=timeout_s)
    scheme, _, rest = url.partition(":")
    if scheme == "duckdb":
        from streams.store.duck import DuckStore

        return DuckStore(_duckdb_path(rest), read_only=read_only)
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        from streams.store.postgres import PostgresStore

        return PostgresStore(url, read_only=read_only, timeout_s=timeout_s)
    raise ConfigError(f"no store is known for {redact(url)!r}", hint=f"use one of: {SCHEMES}")


def _open_ecosystem(url: str, *, read_only: bool, timeout_s: float) -> Store:
    parsed = parse_ecosystem(url)
    load("datastore")  # or the error that names the extra
    from streams.store.ecosystem import EcosystemStore, Peer
    from streams.store.market_data_store import OhlcvPeer
    from streams.store.tenant_bars import TenantPeer

    peer: Peer = TenantPeer(parsed) if parsed.tenant else OhlcvPeer(parsed)
    name = redact(f"{SCHEME}+{parsed.dsn}")
    return EcosystemStore(parsed, name, peer, read_only=read_only, timeout_s=timeout_s)


def redact(url: str) -> str:
    """The URL for people: its password, wherever it stands, is `***`."""
    url = re.sub(r"(://[^:@/?#]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)\b((?:ssl)?password|passwd|pwd)=[^&\s]*", r"\1=***", url)


def _duckdb_path(rest: str) -> str:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    if not path or path.startswith("//"):
        raise ConfigError(
            f"{'duckdb:' + rest!r} names no file",
            hint="write duckdb:PATH, duckdb:///absolute/path or duckdb::memory:",
        )
    return path
