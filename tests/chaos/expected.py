"""The bars that must come of what the log of ticks holds, by the plainest means."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from confluent_kafka import Message

from support import oracle
from support.oracle import Content, Key

TYPES = ("1s", "1m")


class Version(NamedTuple):
    """What is compared of a bar. All of it is a function of the log."""

    content: Content
    last_offset: int
    revision: int
    final: bool


class Logged(NamedTuple):
    """A tick where it lies in the log."""

    tick: oracle.Tick
    trade_id: Any
    offset: int
    sent_ms: int


@dataclass
class Expected:
    """What the run must lead to."""

    bars: dict[Key, Version] = field(default_factory=dict)
    sent_ms: dict[Key, int] = field(default_factory=dict)
    """When the last tick of a bar was sent."""
    ticks: int = 0
    duplicates: int = 0
    late: int = 0


def content_of(bar: Any) -> Content:
    """The compared fields of a bar as it is on the wire."""
    numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return Content(*map(Decimal, numbers), bar.trade_count)


def own_tick(message: Message) -> Logged:
    """A record of Tidegate's own JSON."""
    fields = json.loads(message.value())
    name = f"{fields['venue']}:{fields['symbol']}"
    tick = oracle.Tick(name, fields["ts_ns"], fields["price"], fields["size"])
    return Logged(tick, fields["trade_id"], message.offset(), message.timestamp()[1])


def spot_tick(message: Message) -> Logged:
    """A line of a Binance recording."""
    line = message.value()
    trade_id = json.loads(line.split(b" ", 1)[1])["data"]["t"]
    return Logged(oracle.binance_tick(line, "SPOT"), trade_id, message.offset(), message.timestamp()[1])


def add_logged(expected: Expected, ticks: Iterable[Logged], grace_ns: int) -> None:
    """Enter the bars of ticks; those of an instrument are in the order of their offsets."""
    by_instrument: defaultdict[str, list[Logged]] = defaultdict(list)
    for logged in ticks:
        by_instrument[logged.tick.instrument].append(logged)
    for of_instrument in by_instrument.values():
        expected.ticks += len(of_instrument)
        _add_instrument(expected, of_instrument, grace_ns)


def _add_instrument(expected: Expected, ticks: list[Logged], grace_ns: int) -> None:
    known: set[Any] = set()
    counted: list[oracle.Tick] = []
    last: dict[Key, Logged] = {}
    revisions: dict[Key, int] = {}
    horizon_ns = 0
    for logged in ticks:
        if logged.trade_id in known:
            expected.duplicates += 1
            continue
        known.add(logged.trade_id)
        tick = logged.tick
        counted.append(tick)
        expected.late += tick.ts_ns < horizon_ns
        for name in TYPES:
            step_ns = oracle.STEPS[name]
            key = (tick.instrument, name, tick.ts_ns // step_ns * step_ns)
            if key[2] + step_ns <= horizon_ns and key in last:  # it had been closed, and is published anew
                revisions[key] = revisions.get(key, 0) + 1
            last[key] = logged
        horizon_ns = max(horizon_ns, tick.ts_ns - grace_ns)
    for key, content in oracle.bars_of(counted, TYPES).items():
        final = key[2] + oracle.STEPS[key[1]] <= horizon_ns
        expected.bars[key] = Version(content, last[key].offset, revisions.get(key, 0), final)
        expected.sent_ms[key] = last[key].sent_ms
