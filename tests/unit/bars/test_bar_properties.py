"""What holds for every log, every spec, every batch boundary."""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from unittest import mock

import pytest
from barlog import SECOND, T0, Reader, batches, engine, finished, log, spec, trade, without
from hypothesis import given
from hypothesis import strategies as st
from naive import naive_bars, text
from strategies import TENTH, cuts, logs, specs, trades

from schemas.bar import bar_key
from schemas.fixed import parse
from streams.bars import memory

OFFSETS = ("first_offset", "last_offset")


@pytest.fixture(autouse=True, scope="module")
def short_memory():
    """Forgetting happens in logs as short as these, too."""
    with mock.patch.object(memory, "_ROOM", 1):
        yield


@given(specs, logs(), cuts)
def test_bars_are_what_a_naive_program_makes_of_the_log(a_spec, records, sizes) -> None:
    reader = finished(a_spec, records, sizes)
    bars, dead, counts = naive_bars(a_spec, records)
    assert {key: {name: getattr(bar, name) for name in bars[key]} for key, bar in reader.held.items()} == bars
    assert [(letter.offset, letter.index, str(letter.reason)) for letter in reader.dead] == dead
    assert reader.counts == counts
    assert counts.ticks == counts.accepted + counts.dead_lettered + counts.duplicates + counts.dropped


@given(specs, logs(), cuts, cuts)
def test_batch_boundaries_change_nothing(a_spec, records, some, others) -> None:
    assert finished(a_spec, records, some).held == finished(a_spec, records, others).held


@given(specs, logs(), cuts, st.lists(st.integers(0, 30), min_size=13, max_size=13))
def test_publishing_early_changes_nothing_in_the_end(a_spec, records, sizes, seconds) -> None:
    reader, an_engine = Reader(), engine(a_spec)
    for batch, at in zip(batches(records, sizes), seconds, strict=False):
        reader.take(an_engine.apply(batch, T0 + at * SECOND))
        assert all(not bar.final for bar in reader.read(an_engine.idle(T0 + 2 * at * SECOND)))
    reader.read(an_engine.close())
    assert reader.held == finished(a_spec, records).held


@given(specs, logs(), st.integers(0, 40))
def test_closing_and_going_on_after_all_changes_nothing_in_the_end(a_spec, records, at) -> None:
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
                st.tuples(st.integers(0, 60), trades),
                min_size=1,
                max_size=30,
            )
        ),
        key=lambda tick: tick[0],
    )
    ticks = [tick for _, tick in ordered]
    for trade_id, (tenths, tick) in enumerate(ordered):
        tick.ts_ns, tick.trade_id, tick.recv_ns = T0 + tenths * TENTH, trade_id, None
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
def test_disorder_within_grace_and_copies_leave_the_bars_as_they_are(ticks, sizes) -> None:
    ordered, arrived = ticks
    a_spec = spec("1s", "3s", grace_ns=2 * SECOND, max_future_ns=3600 * SECOND)
    calm = finished(a_spec, log(*ordered))
    rough = finished(a_spec, log(*arrived), sizes)
    assert {k: without(b, *OFFSETS) for k, b in rough.held.items()} == {
        k: without(b, *OFFSETS) for k, b in calm.held.items()
    }
    assert rough.counts.duplicates == len(arrived) - len(ordered)
    assert rough.counts.late == 0
    assert all(bar.revision == 0 and bar.final for bar in rough.held.values())
    for name in ("1s", "3s"):
        volume = sum(Decimal(bar.volume) for bar in rough.held.values() if bar.type == name)
        assert text(volume) == text(Decimal(sum(tick.size for tick in ordered)) / 10**18)


hours = st.integers(0, 4 * 3600 * 10).map(lambda tenths: tenths / 10)
hour_logs = st.lists(
    st.builds(trade, hours, st.sampled_from(["1", "2.5", "-3"]), st.sampled_from(["0", "0.1", "2"])),
    max_size=30,
)


@given(hour_logs, st.sampled_from([0, 60 * SECOND, 3600 * SECOND]), cuts)
def test_an_hour_is_the_sum_of_its_minutes(ticks, retain_ns, sizes) -> None:
    a_spec = spec("1m", "1h", retain_ns=retain_ns, max_future_ns=10**15)
    bars = finished(a_spec, log(*ticks), sizes).held.values()
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
def test_instruments_do_not_touch_each_other(a_spec, records) -> None:
    records = [replace(record, headers=()) for record in records]  # replays count the trades of a record
    alone = {}
    for name in instruments_of(a_spec, records):
        own = [rec for rec in (only(record, name) for record in records) if rec is not None]
        alone |= finished(a_spec, own).held
    assert finished(a_spec, records).held == alone


def instruments_of(a_spec, records):
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
def test_a_bar_agrees_with_itself(a_spec, records) -> None:
    lengths = {bar_type.name: bar_type.interval_ns for bar_type in a_spec.bar_types}
    for key, bar in finished(a_spec, records).held.items():
        assert key == bar_key(bar)
        assert (bar.source_topic, bar.source_partition) == ("ticks", 3)
        assert bar.end_ns - bar.start_ns == lengths[bar.type]
        assert bar.start_ns % lengths[bar.type] == 0
        low, high = parse(bar.low), parse(bar.high)
        assert low <= parse(bar.open) <= high
        assert low <= parse(bar.close) <= high
        assert bar.vwap is None or low <= parse(bar.vwap) <= high
        assert (bar.vwap is None) == (bar.volume == "0")
