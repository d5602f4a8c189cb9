"""Logs of trades for the bar engine, and what comes out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from schemas.bar import Bar, bar_key, decode_bar, encode_bar, newer
from schemas.codecs.base import Codec
from schemas.dead_letter import DeadLetter
from schemas.fixed import parse
from schemas.trade import Trade
from streams.bars.engine import BarEngine
from streams.bars.types import BarSpec, BarType, Counts

SECOND = 10**9
T0 = 1_723_161_600 * SECOND
"""A whole day, so a whole anything."""


@dataclass(frozen=True)
class Rec:
    """A record whose value stands for itself: the trades in it, or the BadTick that its codec raises."""

    offset: int
    value: object
    timestamp: int | None = T0 // 1_000_000
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class GivenTrades(Codec):
    """Takes the value of a `Rec` for what it stands for."""

    feed = "given"

    def decode(self, value):
        if isinstance(value, Exception):
            raise value
        return value

    def _trades(self, value):
        return value


def trade(at, price="1", size="1", trade_id=None, symbol="A", **rest):
    """A trade `at` so many seconds (any decimal with up to 9 digits) after T0."""
    return Trade(
        symbol, rest.pop("venue", ""), T0 + round(at * SECOND), parse(price), parse(size), trade_id, **rest
    )


def log(*trades, start=0):
    """One record a trade, received when the trade happened."""
    return [Rec(start + i, (t,), t.ts_ns // 1_000_000) for i, t in enumerate(trades)]


def spec(*names, **rest):
    return BarSpec(tuple(map(BarType.parse, names or ("1s",))), **rest)


def engine(a_spec=None, *, keep_state=True):
    return BarEngine(a_spec or spec(), GivenTrades(), "ticks", 3, keep_state=keep_state)


class Reader:
    """Whoever reads the bars topic: it keeps the newest version of each bar and sees that all is in order."""

    def __init__(self):
        self.held: dict[bytes, Bar] = {}
        self.versions: dict[tuple, Bar] = {}
        self.dead: list[DeadLetter] = []
        self.counts = Counts()

    def read(self, bars: Iterable[Bar]):
        bars = list(bars)
        starts: dict[tuple[str, str], int] = {}
        for bar in bars:
            assert decode_bar(encode_bar(bar)) == bar
            assert starts.get((bar.instrument, bar.type), -1) < bar.start_ns, "not ascending, or twice"
            starts[bar.instrument, bar.type] = bar.start_ns
            version = (bar_key(bar), bar.last_offset, bar.revision, bar.final)
            assert self.versions.setdefault(version, bar) == bar, "one version, two contents"
            held = self.held.get(bar_key(bar))
            if held is None or newer(bar, held):
                self.held[bar_key(bar)] = bar
        return bars

    def take(self, output):
        self.read(output.bars)
        self.dead += [letter for _, letter in output.dead]
        for field in fields(Counts):
            setattr(
                self.counts, field.name, getattr(self.counts, field.name) + getattr(output.counts, field.name)
            )
        return output


def finished(a_spec, records, sizes=()):
    """What a reader holds when the records came in batches of these sizes, the rest in one, and ended."""
    reader, an_engine = Reader(), engine(a_spec)
    for batch in batches(records, sizes):
        reader.take(an_engine.apply(batch, 0))
    reader.read(an_engine.close())
    return reader


def batches(records, sizes):
    at = 0
    for size in sizes:
        yield records[at : at + size]
        at += size
    yield records[at:]


def without(bar, *names):
    """A bar as a dict, less some fields."""
    return {name: getattr(bar, name) for name in bar.__struct_fields__ if name not in names}
