"""The bars of a log by the plainest means: Decimal, sorting, everything looked up anew for each tick."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from schemas.errors import BadTick
from schemas.replay import REPLAY_HEADER
from schemas.trade import instrument
from streams.bars.types import Counts, Late

ONE = Decimal(10) ** 18


def naive_bars(spec, records):
    """-> (key -> fields of the final bar, reasons and places of dead letters, counts)."""
    with localcontext() as context:
        context.prec = 200
        return _naive_bars(spec, records)


def _naive_bars(spec, records):
    counts, dead = Counts(), []
    accepted = {}  # instrument -> [(arrival, offset, trade, watermark then)]
    revisions = {}
    replayed = {}  # (instrument, origin of the trade) -> watermark when it counted
    for record in records:
        origin, only = _origin(record)
        bad = isinstance(record.value, BadTick) or origin == "unreadable"
        if bad or (only is not None and only >= len(record.value)):
            counts.ticks += 1
            readable = origin != "unreadable"
            dead.append((origin[2] if origin and readable else record.offset, only or 0, "malformed"))
            continue
        counts.ignored += not record.value
        for index, trade in enumerate(record.value):
            if only is not None and index != only:
                counts.skipped += 1
                continue
            counts.ticks += 1
            ticks = accepted.setdefault(instrument(trade.venue, trade.symbol), [])
            watermark = max((tick[2].ts_ns for tick in ticks), default=0)
            what = _fate(spec, record, trade, ticks, watermark, origin)
            identity = (instrument(trade.venue, trade.symbol), origin, index)
            if what != "future" and origin and identity in replayed:
                retain = 0 if spec.late is Late.DROP else spec.retain_ns
                if replayed[identity] >= watermark - max(spec.dedupe_ns or 0, spec.grace_ns + retain):
                    what = "duplicate"
            if what == "duplicate":
                counts.duplicates += 1
                continue
            late = what != "future" and trade.ts_ns < watermark - spec.grace_ns
            counts.late += late
            if what == "drop":
                counts.dropped += 1
            elif what:
                dead.append((origin[2] if origin else record.offset, index, what))
            else:
                counts.accepted += 1
                for bar_type in spec.bar_types:
                    start = trade.ts_ns // bar_type.interval_ns * bar_type.interval_ns
                    key = (instrument(trade.venue, trade.symbol), bar_type.name, start)
                    if start + bar_type.interval_ns <= watermark - spec.grace_ns:
                        revisions[key] = revisions.get(key, -1 if _is_new(ticks, start, bar_type) else 0) + 1
                ticks.append((len(ticks), record.offset, trade, max(watermark, trade.ts_ns)))
                replayed[identity] = max(watermark, trade.ts_ns)
    counts.dead_lettered = len(dead)
    bars = {}
    for name, ticks in accepted.items():
        for bar_type in spec.bar_types:
            windows = {}
            for tick in ticks:
                windows.setdefault(tick[2].ts_ns // bar_type.interval_ns * bar_type.interval_ns, []).append(
                    tick
                )
            for start, members in windows.items():
                key = (name, bar_type.name, start)
                bars[f"{name}|{bar_type.name}|{start}".encode()] = {
                    **_fold(members),
                    "end_ns": start + bar_type.interval_ns,
                    "revision": revisions.get(key, 0),
                    "final": True,
                }
    return bars, dead, counts


def _origin(record):
    """Of a replay where it was first, and the only trade of it that may count."""
    for name, value in record.headers:
        if name == REPLAY_HEADER:
            try:
                found = json.loads(value)
                return (found["topic"], found["partition"], found["offset"]), found.get("index")
            except ValueError:
                return "unreadable", None
    return None, None


def _fate(spec, record, trade, ticks, watermark, origin):
    """'' when it counts."""
    stamp = None if record.timestamp in (None, -1) else record.timestamp * 1_000_000
    receipts = [ns for ns in (trade.recv_ns, stamp) if ns is not None]
    if origin and stamp is not None:
        receipts = [stamp]
    if not receipts or trade.ts_ns > min(receipts) + spec.max_future_ns:
        return "future"
    if trade.trade_id is not None and spec.dedupe_ns is not None:
        counted = [then for _, _, t, then in ticks if t.trade_id == trade.trade_id]
        if counted and counted[-1] >= watermark - spec.dedupe_ns:
            return "duplicate"
    if trade.ts_ns < watermark - spec.grace_ns:
        if spec.late is Late.DROP:
            return "late" if origin else "drop"
        refused = spec.late is Late.DEAD_LETTER and not origin
        if refused or trade.ts_ns < watermark - spec.grace_ns - spec.retain_ns:
            return "late"
    return ""


def _is_new(ticks, start, bar_type):
    return not any(start <= t.ts_ns < start + bar_type.interval_ns for _, _, t, _ in ticks)


def _fold(members):
    trades = [t for _, _, t, _ in sorted(members, key=lambda tick: (tick[2].ts_ns, tick[0]))]
    volume = sum((Decimal(t.size) / ONE for t in trades), Decimal(0))
    turnover = sum((Decimal(t.price) / ONE * Decimal(t.size) / ONE for t in trades), Decimal(0))
    vwap = None
    if volume:
        vwap = text((turnover / volume).quantize(Decimal(1) / ONE, rounding=ROUND_HALF_EVEN))
    first, last = trades[0].trade_id, trades[-1].trade_id
    return {
        "open": text(Decimal(trades[0].price) / ONE),
        "high": text(max(Decimal(t.price) for t in trades) / ONE),
        "low": text(min(Decimal(t.price) for t in trades) / ONE),
        "close": text(Decimal(trades[-1].price) / ONE),
        "volume": text(volume),
        "turnover": text(turnover),
        "vwap": vwap,
        "trade_count": sum(t.count for t in trades),
        "buy_volume": text(sum((Decimal(t.size) for t in trades if t.side == 1), Decimal(0)) / ONE),
        "sell_volume": text(sum((Decimal(t.size) for t in trades if t.side == -1), Decimal(0)) / ONE),
        "first_trade_id": None if first is None else str(first),
        "last_trade_id": None if last is None else str(last),
        "first_offset": min(offset for _, offset, _, _ in members),
        "last_offset": max(offset for _, offset, _, _ in members),
    }


def text(number):
    """Plain notation without trailing zeros."""
    plain = f"{number:f}"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain
