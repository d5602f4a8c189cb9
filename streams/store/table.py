"""The table `bars`, as both databases have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from schemas.bar import Bar
from streams.store.base import BarQuery

PRICES = ("open", "high", "low", "close", "vwap")
"""At most 20 integer and 18 fraction digits: DECIMAL(38, 18)."""
SUMS = ("volume", "turnover", "buy_volume", "sell_volume")
"""At most 60 integer and 36 fraction digits, as the bars topic allows: no DECIMAL of DuckDB holds them."""
NUMBERS = frozenset(PRICES + SUMS)
KEY = ("instrument", "type", "start_ns")
NULLABLE = frozenset({"vwap", "first_trade_id", "last_trade_id"})
_KINDS = {
    "symbol": "text",
    "venue": "text",
    "instrument": "text",
    "type": "text",
    "start_ns": "bigint",
    "end_ns": "bigint",
    "open": "price",
    "high": "price",
    "low": "price",
    "close": "price",
    "volume": "sum",
    "turnover": "sum",
    "vwap": "price",
    "trade_count": "bigint",
    "buy_volume": "sum",
    "sell_volume": "sum",
    "first_trade_id": "text",
    "last_trade_id": "text",
    "first_offset": "bigint",
    "last_offset": "bigint",
    "source_topic": "text",
    "source_partition": "integer",
    "revision": "bigint",
    "final": "boolean",
}
COLUMNS = tuple(_KINDS)
"""The fields of a Bar, in the order of the table; the table ends with updated_at."""
COLUMN_LIST = ", ".join(COLUMNS)
ORDER = "symbol, type, start_ns, instrument"

Row = tuple[Any, ...]
to_row: Callable[[Bar], Row] = attrgetter(*COLUMNS)


def to_bar(row: Sequence[Any]) -> Bar:
    """The Bar of a row of COLUMNS."""
    return Bar(**dict(zip(COLUMNS, row, strict=True)))


SAME_SOURCE = "{new}.source_topic = {old}.source_topic AND {new}.source_partition = {old}.source_partition"
IS_NEWER = (
    "({new}.last_offset, {new}.revision, {new}.final) > ({old}.last_offset, {old}.revision, {old}.final)"
)


def column_types(types: dict[str, str]) -> dict[str, str]:
    """The type of each column, `updated_at` included, where `types` says what a kind is in this database."""
    return {name: types[kind] for name, kind in (_KINDS | {"updated_at": "instant"}).items()}


def assignments(new: str) -> str:
    """What an update sets: everything but the key."""
    return ", ".join(f"{name} = {new}.{name}" for name in COLUMNS if name not in KEY)


def conditions(query: BarQuery, placeholder: Callable[[int], str]) -> tuple[str, list[object]]:
    """The WHERE clause of a query and its arguments; `placeholder` writes the nth, from 1."""
    tests: list[str] = []
    args: list[object] = []
    for test, value in (
        ("symbol =", query.symbol),
        ("venue =", query.venue),
        ("type =", query.type),
        ("start_ns >=", query.start_ns),
        ("start_ns <", query.end_ns),
        ("final =", query.final),
    ):
        if value is not None:
            args.append(value)
            tests.append(f"{test} {placeholder(len(args))}")
    return " AND ".join(tests) or "true", args


def complaints(found: dict[str, str], expected: dict[str, str]) -> str:
    """How a table that exists differs from the one that is needed; empty when it will do."""
    missing = [name for name in expected if name not in found]
    other = [
        f"{name} is {found[name]} where {kind} is needed"
        for name, kind in expected.items()
        if name in found and found[name] != kind
    ]
    return "; ".join(([f"it has no {', '.join(missing)}"] if missing else []) + other)
