"""What holds for every log, every spec, every batch boundary."""

from collections import defaultdict
from decimal import Decimal
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barlog import SECOND, T0, Reader, batches, engine, finished, log, spec, trade, without
from naive import naive_bars, text
from schemas.bar import bar_key
from schemas.fixed import parse
from strategies import TENTH, cuts, logs, numbers, sizes, specs
from streams.bars import memory

OFFSETS = ("first_offset", "last_offset")


@pytest.fixture(autouse=True, scope="module")
def short_memory():
    """Forgetting happens in logs as short as these, too."""
    with mock.patch.object(memory, "_ROOM", 1):
        yield


@given(specs, logs(), cuts)
def test_bars_are_what_a_naive_program_makes_of_the_log(a_spec, records, sizes_):
    reader = finished(a_spec, records, sizes_)
    bars, dead, counts = naive_bars(a_spec, records)
    assert {key: {name: getattr(bar, name) for name in bars[key]} for key, bar in reader.held.items()} == bars
    assert [(letter.offset, letter.index, str(letter.reason)) for letter in reader.dead] == dead
    assert reader.counts == counts


@given(specs, logs(), cuts, cuts)
def test_batch_boundaries_change_nothing(a_spec, records, some, others):
    assert finished(a_spec, records, some).held == finished(a_spec, records, others).held


@given(specs, logs(), cuts)
def test_every_tick_has_one_fate(a_spec, records, sizes_):
    counts = finished(a_spec, records, sizes_).counts
    assert counts.ticks == counts.accepted + counts.dead_lettered + counts.duplicates + counts.dropped
    assert counts.ticks == sum(len(r.value) if isinstance(r.value, list) else 1 for r in records)
    assert counts.skipped == 0


@given(specs, logs(), cuts, st.lists(st.integers(0, 30), min_size=13, max_size=13))
def test_publishing_early_changes_nothing_in_the_end(a_spec, records, sizes_, seconds):
    reader, an_engine = Reader(), engine(a_spec)
    for batch, at in zip(batches(records, sizes_), seconds, strict=False):
        reader.take(an_engine.apply(batch, T0 + at * SECOND))
        assert all(not bar.final for bar in reader.read(an_engine.idle(T0 + 2 * at * SECOND)))
    reader.read(an_engine.close())
    assert reader.held == finished(a_spec, records).held


@given(specs, logs(), st.integers(0, 40))
def test_closing_and_going_on_after_all_changes_nothing_in_the_end(a_spec, records, at):
    reader, an_engine = Reader(), engine(a_spec)
    reader.take(an_engine.apply(records[:at], 0))
    reader.read(an_engine.close())
    assert an_engine.close() == []
    reader.take(an_engine.apply(records[at:], 0))
    reader.read(an_engine.close())
    assert reader.held == finished(a_spec, records).held


@st.composite
def disordered(draw):
    """Trades in time order, and the same trades as a network may deliver them within two seconds of grace."""
    ordered = sorted(
        draw(
            st.lists(
                st.tuples(st.integers(0, 60), st.sampled_from("AB"), numbers, sizes, st.integers(-1, 1)),
                min_size=1,
                max_size=40,
            )
        ),
        key=lambda tick: tick[0],
    )
    ticks = [
        trade(0, trade_id=i, symbol=symbol, side=side)
        for i, (_, symbol, _, _, side) in enumerate(ordered)
    ]
    for tick, (tenths, _, price, size, _) in zip(ticks, ordered, strict=True):
        tick.ts_ns, tick.price, tick.size = T0 + tenths * TENTH, price, size
    delays = defaultdict(list)
    for tick in ticks:
        delays[tick.ts_ns].append(draw(st.integers(0, 20)))
    for same_time in delays.values():
        same_time.sort(reverse=True)
    arrivals = [(tick.ts_ns + delays[tick.ts_ns].pop() * TENTH, tick) for tick in ticks]
    arrived = [tick for _, tick in sorted(arrivals, key=lambda arrival: arrival[0])]
    for _ in range(draw(st.integers(0, 5))):
        original = draw(st.integers(0, len(arrived) - 1))
        arrived.insert(draw(st.integers(original + 1, len(arrived))), arrived[original])
    return ticks, arrived


@given(disordered(), cuts)
def test_disorder_within_grace_and_copies_leave_the_bars_as_they_are(ticks, sizes_):
    ordered, arrived = ticks
    a_spec = spec("1s", "3s", grace_ns=2 * SECOND, max_future_ns=3600 * SECOND)
    calm = finished(a_spec, log(*ordered))
    rough = finished(a_spec, log(*arrived), sizes_)
    assert {k: without(b, *OFFSETS) for k, b in rough.held.items()} == {
        k: without(b, *OFFSETS) for k, b in calm.held.items()
    }
    assert rough.counts.duplicates == len(arrived) - len(ordered)
    assert rough.counts.late == 0
    assert all(bar.revision == 0 and bar.final for bar in rough.held.values())
    for name in ("1s", "3s"):
        volume = sum(Decimal(bar.volume) for bar in rough.held.values() if bar.type == name)
        assert text(volume) == text(Decimal(sum(tick.size for tick in ordered)) / 10**18)


@given(specs, logs(), cuts)
def test_prices_lie_between_low_and_high(a_spec, records, sizes_):
    for bar in finished(a_spec, records, sizes_).held.values():
        low, high = parse(bar.low), parse(bar.high)
        assert low <= parse(bar.open) <= high
        assert low <= parse(bar.close) <= high
        if bar.vwap is not None:
            assert low <= parse(bar.vwap) <= high


hours = st.integers(0, 4 * 3600 * 10).map(lambda tenths: tenths / 10)
long_logs = st.lists(st.builds(trade, hours, st.sampled_from(["1", "2.5", "-3"]), st.sampled_from(["0", "0.1", "2"])))


@given(long_logs, st.sampled_from([0, 60 * SECOND, 3600 * SECOND]), cuts)
def test_an_hour_is_the_sum_of_its_minutes(trades, retain_ns, sizes_):
    a_spec = spec("1m", "1h", retain_ns=retain_ns, max_future_ns=10**15)
    bars = finished(a_spec, log(*trades), sizes_).held.values()
    hour_ns = 3600 * SECOND
    minutes = defaultdict(list)
    for bar in sorted(bars, key=lambda bar: bar.start_ns):
        if bar.type == "1m":
            minutes[bar.start_ns // hour_ns * hour_ns].append(bar)
    hours_ = {bar.start_ns: bar for bar in bars if bar.type == "1h"}
    assert minutes.keys() == hours_.keys()
    for start, parts in minutes.items():
        bar = hours_[start]
        assert (bar.open, bar.close) == (parts[0].open, parts[-1].close)
        assert parse(bar.high) == max(parse(part.high) for part in parts)
        assert parse(bar.low) == min(parse(part.low) for part in parts)
        assert bar.trade_count == sum(part.trade_count for part in parts)
        assert bar.last_offset == max(part.last_offset for part in parts)
        for name in ("volume", "turnover", "buy_volume", "sell_volume"):
            assert Decimal(getattr(bar, name)) == sum(Decimal(getattr(part, name)) for part in parts)


@given(specs, logs())
def test_instruments_do_not_touch_each_other(a_spec, records):
    alone = {}
    for name in engine_instruments(a_spec, records):
        own = [rec for rec in (only(record, name) for record in records) if rec is not None]
        alone |= finished(a_spec, own).held
    assert finished(a_spec, records).held == alone


def engine_instruments(a_spec, records):
    an_engine = engine(a_spec)
    an_engine.apply(records, 0)
    return list(an_engine.instruments)


def only(record, name):
    """The record with the trades of one instrument alone."""
    if not isinstance(record.value, list):
        return None
    mine = [t for t in record.value if (f"{t.venue}:{t.symbol}" if t.venue else t.symbol) == name]
    return type(record)(record.offset, mine, record.timestamp)


@given(specs, logs())
def test_bar_keys_name_the_bar(a_spec, records):
    for key, bar in finished(a_spec, records).held.items():
        assert key == bar_key(bar)
        assert bar.end_ns - bar.start_ns == {t.name: t.interval_ns for t in a_spec.bar_types}[bar.type]
        assert (bar.source_topic, bar.source_partition) == ("ticks", 3)
