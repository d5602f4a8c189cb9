"""Tables that stores need in PostgreSQL: how each is made, and whether one that exists will do."""

# ruff: noqa: S608 - the names in the statements are our own

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from streams.store.postgres_sql import CREATE, TYPES
from streams.store.table import KEY, NULLABLE

_TEXT = ("text", "character varying")
_REAL = ("double precision", "numeric")
_INSTANT = ("timestamp with time zone",)


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table: the types that will do for each column, its key, and the statements that make it."""

    name: str
    columns: Mapping[str, tuple[str, ...]]
    key: tuple[str, ...]
    ddl: str

    def complaints(self, found: Mapping[str, str]) -> str:
        """How a table with these columns and types differs; empty when it will do."""
        missing = [name for name in self.columns if name not in found]
        other = [
            f"{name} is {found[name]} where {' or '.join(kinds)} is needed"
            for name, kinds in self.columns.items()
            if name in found and re.sub(r"^(character varying)\(\d+\)$", r"\1", found[name]) not in kinds
        ]
        said = ([f"it has no {', '.join(missing)}"] if missing else []) + other
        if said and (whose := _whose(found)):
            said.insert(0, whose)
        return "; ".join(said)


def _whose(found: Mapping[str, str]) -> str:
    """Two tables are called bars: which one of them this is."""
    if {"tenant_id", "timeframe"} <= found.keys():
        return "it is market-data-store's table of tenants"
    if {"source_partition", "start_ns"} <= found.keys():
        return "it is the table of Tidegate's own PostgreSQL store"
    return ""


def _hypertable(table: str) -> str:
    """TimescaleDB, where it is installed, wherever its functions are."""
    return f"""
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        EXECUTE format(
            'SELECT %s.create_hypertable(%L::regclass, %L, '
            'chunk_time_interval => INTERVAL %L, if_not_exists => TRUE)',
            (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb'),
            '{table}', 'ts', '7 days'
        );
    END IF;
END $$;
"""


BARS_OHLCV = TableShape(
    "bars_ohlcv",
    {
        "provider": _TEXT,
        "symbol": _TEXT,
        "interval": _TEXT,
        "ts": _INSTANT,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), _REAL),
    },
    ("provider", "symbol", "interval", "ts"),
    """
CREATE TABLE IF NOT EXISTS bars_ohlcv (
    provider   TEXT NOT NULL,
    symbol     TEXT NOT NULL CHECK (symbol = UPPER(symbol)),
    interval   TEXT NOT NULL,
    ts         TIMESTAMPTZ NOT NULL,
    open       DOUBLE PRECISION NOT NULL,
    high       DOUBLE PRECISION NOT NULL,
    low        DOUBLE PRECISION NOT NULL,
    close      DOUBLE PRECISION NOT NULL,
    volume     DOUBLE PRECISION NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, symbol, interval, ts)
);
CREATE OR REPLACE FUNCTION bars_ohlcv_updated() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.updated_at = now(); RETURN NEW; END $$;
DROP TRIGGER IF EXISTS bars_ohlcv_updated ON bars_ohlcv;
CREATE TRIGGER bars_ohlcv_updated BEFORE UPDATE ON bars_ohlcv
    FOR EACH ROW EXECUTE FUNCTION bars_ohlcv_updated();
"""
    + _hypertable("bars_ohlcv"),
)
"""As market-data-store 0.6.73 documents it; its wheel has no migration for it. Nobody else sets updated_at."""

TENANT_BARS = TableShape(
    "bars",
    {
        "ts": _INSTANT,
        "tenant_id": ("uuid", *_TEXT),
        "vendor": _TEXT,
        "symbol": _TEXT,
        "timeframe": _TEXT,
        **dict.fromkeys(("open_price", "high_price", "low_price", "close_price"), _REAL),
        "volume": ("bigint", "integer", "numeric"),
    },
    ("ts", "tenant_id", "vendor", "symbol", "timeframe"),
    """
CREATE TABLE IF NOT EXISTS bars (
    ts          TIMESTAMPTZ NOT NULL,
    tenant_id   UUID NOT NULL,
    vendor      TEXT NOT NULL,
    symbol      TEXT NOT NULL,
    timeframe   TEXT NOT NULL,
    open_price  DOUBLE PRECISION,
    high_price  DOUBLE PRECISION,
    low_price   DOUBLE PRECISION,
    close_price DOUBLE PRECISION,
    volume      BIGINT,
    PRIMARY KEY (ts, tenant_id, vendor, symbol, timeframe)
);
"""
    + _hypertable("bars"),
)
"""What the statements of `mds_client.AMDS` stand on; market-data-store nowhere says how it is made."""

EXACT = "tidegate_bars"
EXACT_KEY = (*KEY, "tenant")


def _definition(name: str, kind: str) -> str:
    collation = ' COLLATE "C"' if kind == "text" else ""
    default = " DEFAULT now()" if name == "updated_at" else ""
    return f"{name} {kind}{collation}{'' if name in NULLABLE else ' NOT NULL'}{default}"


_DEFINITIONS = ",\n    ".join(_definition(name, kind) for name, kind in TYPES.items())


TIDEGATE_BARS = TableShape(
    EXACT,
    {"tenant": ("text",)} | {name: (kind,) for name, kind in TYPES.items()},
    EXACT_KEY,
    f"""
CREATE TABLE IF NOT EXISTS {EXACT} (
    tenant text COLLATE "C" NOT NULL,
    {_DEFINITIONS},
    PRIMARY KEY ({", ".join(EXACT_KEY)})
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX IF NOT EXISTS {EXACT}_one_row
    ON {EXACT} (upper(symbol COLLATE "C"), venue, type, start_ns, tenant);
""",
)
"""What the tables of the ecosystem have no room for: exact numbers, versions, sources, sides, ids.

The index is there because theirs are keyed by symbols in upper case: ethusdt and ETHUSDT would be one row.
"""

OWN_BARS = TableShape("bars", {name: (kind,) for name, kind in TYPES.items()}, KEY, CREATE)
"""The table of the plain PostgreSQL store."""
