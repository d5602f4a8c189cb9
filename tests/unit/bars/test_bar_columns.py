"""However a batch is read, as columns, in runs or one by one, the same comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from itertools import accumulate
from unittest import mock

import pytest
from barlog import SECOND, T0, Reader, Rec, batches, spec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from staterows import Changelog, contents
from strategies import TENTH, durations

from schemas.checks import MAX_COUNT, MAX_NS, MIN_NS
from schemas.codecs.tidegate import TidegateCodec
from schemas.fixed import TURNOVER_SCALE, render
from schemas.replay import REPLAY_HEADER, Replay, encode_replay
from streams.bars import board, intake, memory, seen, table
from streams.bars.engine import BarEngine
from streams.bars.judge import Judge
from streams.bars.sheet import Sheet
from streams.bars.types import BarSpec, BarType, Late, Record
from streams.fetch import fetched
from support.fetched import record_batches

CENTURIES = 2**63
LARGEST = "9223372036.854775807"


intake.load()  # without numba there are no columns


@pytest.fixture(autouse=True, scope="module")
def little_room():
    """Forgetting happens, and tables grow, in logs as short as these, too."""
    with (
        mock.patch.object(memory, "_ROOM", 1),
        mock.patch.object(seen, "_ROOM", 1),
        mock.patch.object(board, "_IDS", 4),
        mock.patch.object(board, "_FEW_IDS", 2),
        mock.patch.object(board, "_ROOM", 1),
        mock.patch.object(board, "ROWS", 1),
        mock.patch.object(table, "ROWS", 1),
    ):
        yield


class OneByOne(TidegateCodec):
    """Knows of `decode` only."""

    def read_columns(self, values):
        return None

    def decode_run(self, values, start):
        return []


#: Codec, and from how many records on it reads columns.
WAYS = {
    "columns": (TidegateCodec, 1),
    "mixed": (TidegateCodec, 4),
    "columns of what was fetched": (TidegateCodec, 1),
    "mixed of what was fetched": (TidegateCodec, 4),
    "runs of what was fetched": (TidegateCodec, 10**9),
    "runs": (TidegateCodec, 10**9),
    "one by one": (OneByOne, 10**9),
}


def reading(way):
    """So that batches are read that way."""
    return mock.patch.object(intake, "MANY", WAYS[way][1])


@contextmanager
def counted_sheets() -> Iterator[list[int]]:
    """How many ticks were folded in each sheet that was made."""
    made: list[int] = []
    init = Sheet.__init__

    def counting(self, columns, records, *args, **kwargs):
        init(self, columns, records, *args, **kwargs)
        made.append(len(columns.code))

    with mock.patch.object(Sheet, "__init__", counting):
        yield made


def outcome(way, a_spec, log, sizes=(), *, venue="", restart=-1, again=False, then=None):
    """All that comes of a log in batches of these sizes.

    Before the batch `restart` the engine starts anew from its rows: with the batch before `again`, where offsets
    were committed late; and with the settings `then`, if any.
    """
    codec = WAYS[way][0]
    rows = Changelog()
    found = []
    with reading(way):
        an_engine = BarEngine(a_spec, codec(venue), "ticks", 3)
        before: Sequence[Rec] = []
        for number, batch in enumerate(batches(log, sizes)):
            given: Sequence[Record] = batch
            if number == restart:
                an_engine = BarEngine(then or a_spec, codec(venue), "ticks", 3)
                an_engine.restore(rows)
                given = [*before, *batch] if again else batch
            before = batch
            if given and way.endswith("fetched"):
                given = fetched.read(record_batches(given))
            read = an_engine.read(given) if number % 2 else None
            output = an_engine.apply(given, number, read)
            rows.write(an_engine.changed())
            dead = [(told_of(record), letter) for record, letter in output.dead]
            bars = in_order(output.bars)
            if number % 3 == 2:
                bars += in_order(an_engine.idle(CENTURIES - 1))
            found.append((bars, dead, output.counts, contents(rows, an_engine.spec)))
        bars = in_order(an_engine.close())
        rows.write(an_engine.changed())
        found.append((bars, contents(rows, an_engine.spec)))
    return found


def told_of(record):
    """What is passed on of a record that is refused."""
    return record.offset, record.key, record.value, tuple(record.headers)


def in_order(bars):
    """By instrument: which comes first of two is left open."""
    return sorted(bars, key=lambda bar: (bar.instrument, bar.end_ns, bar.start_ns))


def assert_all_the_same(a_spec, log, sizes=(), **rest) -> list[int]:
    """Gives the sizes of the sheets that were made on the way."""
    plain = outcome("one by one", a_spec, log, sizes, **rest)
    for way in WAYS.keys() - {"columns", "one by one"}:
        assert outcome(way, a_spec, log, sizes, **rest) == plain, way
    with counted_sheets() as made:
        assert outcome("columns", a_spec, log, sizes, **rest) == plain
    return made


def value(**fields: object) -> bytes:
    """A record with fields replaced; None is null."""
    tick = {"symbol": "A", "ts_ns": T0, "price": "1.5", "size": "2", **fields}
    return json.dumps(tick, separators=(",", ":"), ensure_ascii=False).encode()


def records(*values: bytes | None, at_ms: int | None = T0 // 10**6, start: int = 0) -> list[Rec]:
    return [Rec(start + i, v, at_ms) for i, v in enumerate(values)]


SYMBOLS = ["A", "A", "A", "B", "C", "Ä☃"]
VENUES = ["V", "V", "V", "W", ""]
PLAIN = ["1.5", "0.1", "61837.63", "0", "0.000000001", "123456789.123456789", "7", "2.50"]
ODD_PRICES = ["-37.63", "1e3", "0.0000000001", "123456789012345678", "1.5000000000", LARGEST, "-0", "0.0"]
ODD_SIZES = ["1e-3", "0.000000000000000001", "1000000000000", LARGEST, "4000000000", "0.0000000000"]
BAD = ["-1", "1.", ".5", "+1", "01", "", "NaN", "1" * 19, "1,5"]


@dataclass(frozen=True)
class Shape:
    """How a producer writes, and how calm its market is."""

    venue: bool
    trade_id: str
    side: bool
    count: bool
    recv_ns: bool
    turned: bool
    spaced: bool
    step_ns: int
    disorder_ns: int
    odd: int
    """Of 256 records, how many are not like the others."""


shapes = st.builds(
    Shape,
    *(st.booleans(), st.sampled_from(["", "number", "text", "copies"])),
    *(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([0, TENTH, SECOND, 40 * SECOND]),
    st.sampled_from([0, 0, TENTH, 2 * SECOND, 9 * SECOND]),
    st.sampled_from([0, 0, 0, 8, 90]),
)

STAMPS = [None, -1, T0 // 10**6, 0]
HEADERS = [
    (("trace", b"1"),),
    ((REPLAY_HEADER, encode_replay(Replay("ticks", 3, 1))),),
    ((REPLAY_HEADER, encode_replay(Replay("ticks", 3, 2, 0))),),
    ((REPLAY_HEADER, encode_replay(Replay("ticks", 3, 2, 1))),),
    ((REPLAY_HEADER, b"{"),),
]


def record(shape: Shape, number: int, offset: int, choices: bytes) -> Rec:
    """One byte a choice: a draw a field would take hypothesis ten times as long."""
    symbol, venue, behind, price, size, trade_id, side, count, recv, odd, how, which = choices
    ts_ns = T0 + number * shape.step_ns - shape.disorder_ns * (behind % 5) // 4 + behind % 3
    tick: dict[str, object] = {"symbol": SYMBOLS[symbol % len(SYMBOLS)]}
    if shape.venue:
        tick["venue"] = VENUES[venue % len(VENUES)]
    tick |= {"ts_ns": ts_ns, "price": PLAIN[price % len(PLAIN)], "size": PLAIN[size % len(PLAIN)]}
    if shape.trade_id:
        numbers = {"number": number, "text": f"t{number}", "copies": trade_id % 16}
        tick["trade_id"] = numbers[shape.trade_id]
    if shape.side:
        tick["side"] = ["buy", "sell"][side % 2]
    if shape.count:
        tick["count"] = 1 + count % 3
    if shape.recv_ns:
        tick["recv_ns"] = ts_ns + (recv % 7 - 1) * SECOND
    stamp_ms = ts_ns // 10**6 + 1
    if odd >= shape.odd:
        return Rec(offset, text(shape, tick), stamp_ms)
    kind = how % 8
    if kind == 0:
        return Rec(offset, text(shape, tick), STAMPS[which % len(STAMPS)])
    if kind == 1:
        return Rec(offset, text(shape, tick), stamp_ms, headers=HEADERS[which % len(HEADERS)])
    if kind == 2:
        return Rec(offset, garbage(text(shape, tick), which), stamp_ms)
    return Rec(offset, text(shape, deviant(tick, kind, which)), stamp_ms)


def deviant(tick: dict[str, object], kind: int, which: int) -> dict[str, object]:
    if kind == 3:
        return tick | {"price": [*ODD_PRICES, *BAD][which % (len(ODD_PRICES) + len(BAD))]}
    if kind == 4:
        return tick | {"size": [*ODD_SIZES, *BAD][which % (len(ODD_SIZES) + len(BAD))]}
    if kind == 5:
        field = ["venue", "trade_id", "side", "recv_ns", "count"][which % 5]
        return tick | {field: None}
    if kind == 6:
        field, other = [
            ("price", 1.5),
            ("size", 2),
            ("trade_id", "x"),
            ("trade_id", -5),
            ("trade_id", 2**64 - 1),
            ("trade_id", ""),
            ("trade_id", "a\x7fb"),
            ("trade_id", "1" * 129),
            ("symbol", ""),
            ("symbol", "A|B"),
            ("venue", "V:W"),
            ("side", "BUY"),
            ("count", 0),
            ("count", MAX_COUNT + 1),
            ("ts_ns", MIN_NS - 1),
            ("ts_ns", 10**18),
            ("recv_ns", 5),
            ("extra", {"a": [1]}),
        ][which % 18]
        return tick | {field: other}
    return tick | {"ts_ns": T0 + which % 100 * TENTH}


def text(shape: Shape, tick: dict[str, object]) -> bytes:
    fields = list(tick.items())
    if shape.turned:
        fields.reverse()
    separators = (", ", ": ") if shape.spaced else (",", ":")
    return json.dumps(dict(fields), separators=separators, ensure_ascii=False).encode()


def garbage(good: bytes, which: int) -> bytes | None:
    return [
        None,
        b"",
        b"{",
        b"\xff",
        good[:-1],
        good + b"}",
        good + b" ",
        good.replace(b",", b",\n", 1),
        good.replace(b'"A"', b'"\\u0041"'),
        good.replace(b'"A"', b'"\xff"'),
        good.replace(b'"', b"'"),
        b"[" + good + b"]",
        b"\n",
    ][which % 13]


@st.composite
def logs(draw) -> list[Rec]:
    """Two producers, one after the other."""
    found: list[Rec] = []
    offset = -1
    for shape, most in ((draw(shapes), 40), (draw(shapes), 15)):
        count = draw(st.integers(0, most))
        choices = draw(st.binary(min_size=12 * count, max_size=12 * count))
        for i in range(count):
            own = choices[12 * i : 12 * i + 12]
            offset += 7 if own[8] > 250 else 1
            found.append(record(shape, len(found), offset, own))
    return found


specs = st.builds(
    BarSpec,
    bar_types=st.sampled_from(
        [("1s",), ("1s", "1m", "5m", "1h"), ("10s", "2s", "3s"), ("1s", "90s", "1m")]
    ).map(lambda names: tuple(map(BarType.parse, names))),
    grace_ns=durations,
    late=st.sampled_from([Late.REVISE, Late.REVISE, Late.DEAD_LETTER, Late.DROP]),
    retain_ns=durations,
    dedupe_ns=st.one_of(st.none(), durations),
    max_future_ns=st.sampled_from([0, SECOND, 10 * SECOND, CENTURIES]),
)
cuts = st.lists(st.integers(0, 20), max_size=6)
venues = st.sampled_from(["", "", "X"])


@settings(deadline=None)
@given(specs, logs(), cuts, venues, st.integers(-1, 5), st.booleans(), st.none() | specs)
def test_columns_and_runs_give_what_one_by_one_gives(a_spec, log, sizes, venue, restart, again, then) -> None:
    if then is not None:
        then = replace(then, bar_types=a_spec.bar_types)
    assert_all_the_same(a_spec, log, sizes, venue=venue, restart=restart, again=again, then=then)


calm_shapes = shapes.map(lambda shape: replace(shape, odd=0))


@settings(deadline=None)
@given(
    specs, calm_shapes, st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=40), cuts, venues
)
def test_every_batch_of_a_calm_log_is_read_as_columns(a_spec, shape, choices, sizes, venue) -> None:
    log = [record(shape, i, i, own) for i, own in enumerate(choices)]
    made = assert_all_the_same(a_spec, log, sizes, venue=venue)
    assert made == [len(batch) for batch in batches(log, sizes) if batch]


@settings(deadline=None)
@given(specs, logs(), cuts, cuts)
def test_what_a_restart_reads_does_not_depend_on_how_the_rows_were_made(a_spec, log, sizes, later) -> None:
    half = len(log) // 2
    found = []
    for way, (codec, *_) in WAYS.items():
        an_engine = BarEngine(a_spec, codec(), "ticks", 3)
        with reading(way):
            for batch in batches(log[:half], sizes):
                an_engine.apply(batch, 0)
        restored = BarEngine(a_spec, TidegateCodec(), "ticks", 3)
        restored.restore({key: row for key, row in an_engine.changed().items() if row is not None})
        reader = Reader()
        for batch in batches(log[half:], later):
            reader.take(restored.apply(batch, 0))
        reader.read(restored.close())
        found.append((way, reader.held, reader.dead, reader.counts))
    assert [tuple(rest) for _, *rest in found] == [found[0][1:]] * len(found)


def calm(count: int, start: int = 0, **fields: object) -> list[Rec]:
    """A record a tenth of a second, of three instruments."""
    return [
        Rec(start + i, value(symbol="ABC"[i % 3], ts_ns=T0 + (start + i) * TENTH, **fields), T0 // 10**6)
        for i in range(count)
    ]


A_SPEC = spec("1s", "3s", "10s", grace_ns=0, max_future_ns=CENTURIES)


def busy(count: int, ticks_a_window: int, start: int = 0) -> list[Rec]:
    """A log of one instrument."""
    values = (value(ts_ns=T0 + (start + i) // ticks_a_window * SECOND) for i in range(count))
    return records(*values, start=start)


@pytest.mark.parametrize("trade_id", [2**63 - 1, 2**63, 2**64 - 1, "x"])
def test_an_id_that_no_column_holds_changes_nothing_of_those_after_it(trade_id) -> None:
    log = records(value(trade_id=trade_id), value(trade_id=trade_id), *(value(trade_id=n) for n in range(40)))
    assert assert_all_the_same(A_SPEC, log, [2])


@pytest.mark.parametrize("ticks_a_window", [1, 6])
def test_a_batch_is_folded_at_once_from_so_many_records_on(ticks_a_window) -> None:
    with counted_sheets() as made:
        an_engine = BarEngine(A_SPEC, TidegateCodec(), "ticks", 3)
        an_engine.apply(busy(intake.MANY - 1, ticks_a_window), 0)
        assert made == []
        with mock.patch.object(Judge, "take") as one_by_one:
            an_engine.apply(busy(intake.MANY, ticks_a_window, start=intake.MANY), 0)
    assert made == [intake.MANY]
    assert [len(ticks) for _, ticks in (call.args for call in one_by_one.call_args_list)] == [0]


@pytest.mark.parametrize(
    ("number", "odd"),
    [
        (0, {"value": None}),
        (5, {"value": None}),
        (5, {"value": b""}),
        (0, {"value": b"{"}),
        (5, {"value": b"{"}),
        (5, {"value": value() + b"\n"}),
        (5, {"value": b"\n" + value()}),
        (5, {"value": value(symbol="B").replace(b",", b",\n", 1)}),
        (5, {"value": value().replace(b'"A"', b'"\\u0041"')}),
        (5, {"value": value().replace(b'"A"', b'"\xff"')}),
        (5, {"value": value(trade_id=1)}),
        (5, {"value": value(price=1.5)}),
        (5, {"value": value(price="-1.5")}),
        (5, {"value": value(price="0.0000000001")}),
        (5, {"value": value(price="9223372036.854775808")}),
        (5, {"value": value(price="1e3")}),
        (5, {"value": value(size="-2")}),
        (5, {"value": value(symbol="")}),
        (5, {"value": value(symbol="A|B")}),
        (5, {"value": value(ts_ns=MIN_NS - 1)}),
        (5, {"value": value(ts_ns=MAX_NS + 1)}),
        (5, {"headers": ((REPLAY_HEADER, encode_replay(Replay("ticks", 3, 2))),)}),
    ],
)
def test_a_batch_with_a_record_that_is_no_row_of_columns_is_not(number, odd) -> None:
    log = calm(12)
    log[number] = replace(log[number], **odd)
    assert assert_all_the_same(A_SPEC, log, [12]) == []


def test_headers_of_others_are_no_reason_against_columns() -> None:
    log = [replace(record, headers=(("trace", b"1"),)) for record in calm(12)]
    assert assert_all_the_same(A_SPEC, log, [12]) == [12]


@pytest.mark.parametrize("stamp_ms", [None, -1, T0 // 10**6 - 1000])
def test_a_record_without_a_good_timestamp_costs_the_others_nothing(stamp_ms) -> None:
    log = calm(30)
    log[5] = replace(log[5], timestamp=stamp_ms)
    a_spec = replace(A_SPEC, max_future_ns=10 * SECOND)
    assert assert_all_the_same(a_spec, log, [30]) == [30]


def test_a_batch_of_a_long_time_is_folded_at_once_where_each_tick_has_the_timestamp_of_its_time() -> None:
    a_spec = spec("1s", "10s", grace_ns=0, max_future_ns=SECOND)
    log = [replace(record, timestamp=(T0 + i * TENTH) // 10**6) for i, record in enumerate(calm(60))]
    assert assert_all_the_same(a_spec, log, [60]) == [60]
    with reading("columns"), mock.patch.object(Judge, "take") as one_by_one:
        BarEngine(a_spec, TidegateCodec(), "ticks", 3).apply(log, 0)
    assert [len(ticks) for _, ticks in (call.args for call in one_by_one.call_args_list)] == [0]
    late = replace(log[40], timestamp=log[20].timestamp)
    (_, dead, counts, _), _ = outcome("columns", a_spec, [*log[:40], late, *log[41:]], [60])[:2]
    assert ([letter.offset for _, letter in dead], counts.accepted) == ([40], 59)


@pytest.mark.parametrize(("step", "at_once"), [(1, True), (-1, False)])
def test_many_windows_are_folded_at_once_unless_they_come_in_great_disorder(step, at_once) -> None:
    times = [T0 + n * SECOND for n in range(3000)][::step]
    log = records(*(value(ts_ns=ts_ns, trade_id=n) for n, ts_ns in enumerate(times)))
    a_spec = replace(spec("1s"), grace_ns=100 * SECOND, max_future_ns=CENTURIES)
    with counted_sheets() as made:
        found = outcome("columns", a_spec, log)
    assert made == [3000] * at_once
    assert found == outcome("one by one", a_spec, log)


def test_a_producer_that_writes_otherwise_is_read_as_columns_from_its_second_batch_at_the_latest() -> None:
    log = calm(10)
    log += calm(10, start=10, trade_id="x")
    log[15:] = calm(15, start=15, side="buy")
    made = assert_all_the_same(A_SPEC, log, [10, 10, 5])
    assert made == [10, 5, 5]


@pytest.mark.parametrize("late", list(Late))
def test_late_ticks_of_a_batch_of_columns_meet_the_same_policy(late) -> None:
    a_spec = spec(
        "2s", "3s", "10s", grace_ns=SECOND, late=late, retain_ns=5 * SECOND, max_future_ns=CENTURIES
    )
    times = [0, 1, 9, 8, 7, 3, 20, 12, 11, 2, 21]
    log = records(*(value(ts_ns=T0 + t * SECOND, trade_id=i) for i, t in enumerate(times)))
    assert assert_all_the_same(a_spec, log) == [11]
    assert assert_all_the_same(a_spec, log, [4, 4]) == [4, 4, 3]


@pytest.mark.parametrize("dedupe_ns", [None, 0, 2 * SECOND, 100 * SECOND])
def test_copies_in_a_batch_of_columns_meet_the_same_memory(dedupe_ns) -> None:
    a_spec = spec("1s", "1m", grace_ns=60 * SECOND, dedupe_ns=dedupe_ns, max_future_ns=CENTURIES)
    log = records(
        *(value(ts_ns=T0 + i * SECOND, trade_id=t) for i, t in enumerate([1, 2, 1, 3, 4, 5, 1, 2, 6, 6, 2]))
    )
    assert assert_all_the_same(a_spec, log, [3, 4]) == [3, 4, 4]


def test_a_tick_behind_the_watermark_is_remembered_as_of_the_watermark() -> None:
    a_spec = spec("1s", "10s", grace_ns=5 * SECOND, dedupe_ns=2 * SECOND, max_future_ns=CENTURIES)
    for ids in ([1, 2, 3, 2, 4], ["1", "2", "3", "2", "4"], [3, 2, 1, 2, 4]):
        log = records(
            *(value(ts_ns=T0 + at * SECOND, trade_id=i) for at, i in zip([4, 1, 2, 5, 6], ids, strict=True))
        )
        for restart in (-1, 2):
            assert assert_all_the_same(a_spec, log, [1, 2], restart=restart) == [1, 2, 2]
        counts = [counts.duplicates for _, _, counts, _ in outcome("columns", a_spec, log, [1, 2])[:-1]]
        assert counts == [0, 0, 1]


def test_of_equal_times_the_first_to_come_opens_and_the_last_closes() -> None:
    log = records(
        *(
            value(ts_ns=T0 + at, price=price, trade_id=i)
            for i, (at, price) in enumerate([(5, "3"), (2, "4"), (2, "5"), (9, "6"), (9, "7"), (4, "1")])
        )
    )
    assert assert_all_the_same(spec("1s"), log) == [6]
    (bar,) = outcome("columns", spec("1s"), log)[-1][0]
    assert (bar.open, bar.high, bar.low, bar.close) == ("4", "7", "1", "7")
    assert (bar.first_trade_id, bar.last_trade_id) == ("1", "4")
    assert (bar.first_offset, bar.last_offset) == (0, 5)


@pytest.mark.parametrize(
    ("log", "made"),
    [
        (records(value()), [1]),
        (records(value(price="0", size="0")), [1]),
        (records(value(price=LARGEST, size="0.000000001")), [1]),
        (records(*[value(price=LARGEST)] * 3), [3]),
        (records(value(size="4611686018.427387903")), [1]),
        (records(value(size=LARGEST)), []),
        (records(*[value(size="2305843009")] * 2), [2]),
        (records(*[value(size="2305843010")] * 2), []),
        (records(*[value(size="4000000000")] * 5), []),
        (records(value(price=LARGEST, size="4611686018", count=MAX_COUNT, side="sell")), [1]),
        (records(*[value(count=MAX_COUNT)] * 3), [3]),
        (records(value(ts_ns=MIN_NS), value(ts_ns=MIN_NS + 2**62 - 1)), [2]),
        (records(value(ts_ns=MIN_NS), value(ts_ns=MIN_NS + 2**62)), [2]),
        (records(value(ts_ns=MIN_NS), value(ts_ns=MAX_NS)), []),
        (records(value(ts_ns=MIN_NS), value(symbol="B", ts_ns=MIN_NS + 2**61 - 1)), [2]),
        (records(value(ts_ns=MIN_NS), value(symbol="B", ts_ns=MIN_NS + 2**61)), [2]),
        (records(value(ts_ns=MAX_NS), value(ts_ns=MAX_NS)), []),
        (records(value(symbol="B", ts_ns=MAX_NS), value(ts_ns=MAX_NS - 1), value(ts_ns=MAX_NS)), []),
    ],
)
def test_at_the_limits_columns_are_exact_or_not_used(log, made) -> None:
    a_spec = spec("1s", "7s", "1h", "366d", max_future_ns=CENTURIES)
    assert assert_all_the_same(a_spec, log) == made


units = st.one_of(
    st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 2**21 - 1, 2**21, 2**42, 2**62, 2**63 - 1])
)
small_units = st.one_of(st.integers(0, 2**58), st.sampled_from([0, 1, 2**21 - 1, 2**42 - 1]))


@settings(deadline=None)
@given(st.lists(st.tuples(units, small_units, st.sampled_from(["buy", "sell"])), min_size=1, max_size=12))
@example([(2**63 - 1, 2**58, "buy")] * 16)
@example([(2**63 - 1, 2**58, "sell")] * 16)
def test_sums_of_large_numbers_are_exact(trades) -> None:
    log = records(*(value(price=nanos(p), size=nanos(s), side=side) for p, s, side in trades))
    with counted_sheets() as made:
        ((bar,), _) = outcome("columns", spec("1h"), log)[-1]
    assert made == [len(log)]
    assert bar.volume == render(sum(s for _, s, _ in trades), 9)
    assert bar.turnover == render(sum(p * s for p, s, _ in trades) * 10**18, TURNOVER_SCALE)
    assert bar.buy_volume == render(sum(s for _, s, side in trades if side == "buy"), 9)
    assert bar.sell_volume == render(sum(s for _, s, side in trades if side == "sell"), 9)


def nanos(units: int) -> str:
    return f"{units // 10**9}.{units % 10**9:09}"


def test_sums_of_as_many_as_there_may_be_are_exact() -> None:
    count = 2**18
    price, size = 2**63 - 1, 2**42 - 1
    log = records(*[value(price=nanos(price), size=nanos(size))] * count)
    with counted_sheets() as made:
        an_engine = BarEngine(spec("1h"), TidegateCodec(), "ticks", 3)
        an_engine.apply(log, 0)
    assert made == [count]
    (bar,) = an_engine.close()
    assert bar.volume == render(count * size, 9)
    assert bar.turnover == render(count * price * size * 10**18, TURNOVER_SCALE)


def test_records_at_or_before_the_position_are_passed_over_though_they_were_read() -> None:
    log = calm(30)
    with reading("columns"):
        an_engine = BarEngine(A_SPEC, TidegateCodec(), "ticks", 3)
        an_engine.apply(log[:20], 0)
        output = an_engine.apply(log[10:], 0, an_engine.read(log[10:]))
    assert output.counts.ticks == 10
    assert in_order(an_engine.close()) == outcome("one by one", A_SPEC, log, [20])[-1][0]


@pytest.mark.parametrize("way", WAYS)
def test_two_spellings_of_one_instrument_are_one(way) -> None:
    spellings = [{"venue": "V", "symbol": "A"}, {"venue": "", "symbol": "V:A"}]
    log = records(*(value(**spellings[i % 2], ts_ns=T0 + i) for i in range(6)))
    counts = [
        sum(counts.accepted for _, _, counts, _ in outcome(way, A_SPEC, log, sizes)[:-1])
        for sizes in ([6], list(accumulate([1] * 6, lambda one, _: one)))
    ]
    assert counts == [6, 6], "in one batch, and in batches of one"


def one_each(*ticks: dict[str, object]) -> tuple[list[Rec], list[int]]:
    """A log, and the ends of its batches of one."""
    return records(*(value(**tick) for tick in ticks)), [1] * len(ticks)


def test_sums_of_many_batches_are_exact_where_no_column_holds_them() -> None:
    log, ones = one_each(*[{"size": "4000000000", "trade_id": n} for n in range(6)])
    assert assert_all_the_same(A_SPEC, log, ones) == [1] * 6


@pytest.mark.parametrize("ids", [[7, 7], [5, 5, 4, 4], [1, 9, 3, 9], [1, 9, 3, 3], [9, 3, 2, 10, 9, 3]])
def test_an_id_that_comes_again_in_a_later_batch_is_a_duplicate(ids) -> None:
    log, ones = one_each(*({"trade_id": trade_id} for trade_id in ids))
    for sizes in (ones, [2], [3], [1, 2]):
        assert_all_the_same(A_SPEC, log, sizes)
        accepted = sum(found[2].accepted for found in outcome("columns", A_SPEC, log, sizes)[:-1])
        assert accepted == len(set(ids)), sizes


@pytest.mark.parametrize("way", WAYS)
def test_a_coarse_window_closes_when_it_ends_though_no_finer_one_does(way) -> None:
    an_engine = BarEngine(spec("1s", "1m", max_future_ns=CENTURIES), WAYS[way][0](), "ticks", 3)
    found = []
    with reading(way):
        for number, tenths in enumerate((100, 605, 622)):
            log = records(value(ts_ns=T0 + tenths * TENTH), start=number)
            found.append([bar.type for bar in an_engine.apply(log, 0).bars])
    assert found == [[], ["1s"], ["1m"]]


def test_what_state_rows_contain_is_not_taken_again() -> None:
    log = records(*(value() for _ in range(8)))
    for way in WAYS:
        *found, _ = outcome(way, A_SPEC, log, [4], restart=1, again=True)
        assert [counts.accepted for _, _, counts, _ in found] == [4, 4], way


@pytest.mark.parametrize("size", ["1", "4000000000"])
@pytest.mark.parametrize("way", WAYS)
def test_an_instrument_is_quiet_from_its_last_batch_on(way, size) -> None:
    last_ns = T0 + SECOND
    with reading(way):
        an_engine = BarEngine(A_SPEC, WAYS[way][0](), "ticks", 3)
        for number, now_ns in enumerate((T0, last_ns)):
            an_engine.apply(records(value(size=size), start=number), now_ns)
        assert an_engine.idle(last_ns + A_SPEC.idle_ns - 1) == []
        assert an_engine.idle(last_ns + A_SPEC.idle_ns)


@pytest.mark.parametrize("way", WAYS)
def test_with_less_grace_after_a_restart_nothing_closes_before_the_watermark_moves(way) -> None:
    times = [(5.2, 10.5), (10.2,), (5,)]
    rows: dict[str, bytes | None] = {}
    offset, grace_ns, found = 0, 10 * SECOND, []
    with reading(way):
        for seconds in times:
            an_engine = BarEngine(
                spec("1s", grace_ns=grace_ns, max_future_ns=CENTURIES), WAYS[way][0](), "ticks", 3
            )
            an_engine.restore({key: row for key, row in rows.items() if row is not None})
            log = records(*(value(ts_ns=T0 + round(at * SECOND)) for at in seconds), start=offset)
            found.append(an_engine.apply(log, 0))
            rows |= an_engine.changed()
            offset, grace_ns = offset + len(log), 2 * SECOND
    assert [(len(output.bars), output.counts.late) for output in found] == [(0, 0)] * 3


@pytest.mark.parametrize("trade_id", ["t{}", 7, None])
def test_without_state_ids_are_forgotten_all_the_same(trade_id) -> None:
    """Text, and numbers of which not all ascend."""
    a_spec = spec("1s", dedupe_ns=SECOND, retain_ns=SECOND, max_future_ns=CENTURIES)
    with reading("columns"):
        an_engine = BarEngine(a_spec, TidegateCodec(), "ticks", 3, keep_state=False)
        for n in range(300):
            ids = (
                [2 * n + 1, 2 * n]
                if trade_id == 7
                else [trade_id and trade_id.format(2 * n + i) for i in (0, 1)]
            )
            log = records(*(value(ts_ns=T0 + n * SECOND, trade_id=one) for one in ids), start=2 * n)
            assert an_engine.apply(log, 0).counts.accepted == 2
    (book,) = an_engine._books.values()
    assert len(book.seen) < 100
    assert len(an_engine._upkeep.board._windows.rows) < 20


@pytest.mark.parametrize("nanos", [0, 1])
def test_a_sum_at_the_limit_of_the_tables_is_exact(nanos) -> None:
    size = f"4611686018.{427387904 - nanos}"  # 2**62, and one less
    log, ones = one_each(*[{"size": size, "side": "buy"}] * 4)
    assert_all_the_same(A_SPEC, log, ones)


def test_a_window_that_ends_after_the_last_instant_stays_in_its_book() -> None:
    log, ones = one_each({"ts_ns": MAX_NS}, {"ts_ns": MAX_NS - 3 * SECOND // 2}, {"ts_ns": MAX_NS - SECOND})
    a_spec = spec("1s", grace_ns=2 * SECOND, max_future_ns=CENTURIES)
    assert_all_the_same(a_spec, log, ones)


@pytest.mark.parametrize("late", list(Late))
@pytest.mark.parametrize("size", [50, 10, 1])
def test_late_ticks_of_long_ago_count_as_long_as_they_may(late, size) -> None:
    """More closed windows than are kept, and of every instant some that can be revised and some that cannot."""
    a_spec = spec(
        "1s", "3s", "10s", grace_ns=SECOND, late=late, retain_ns=40 * SECOND, max_future_ns=CENTURIES
    )
    times = [n - (n % 7 == 6) * (n % 5 * 11) for n in range(150)]
    log = records(*(value(ts_ns=T0 + at * SECOND, trade_id=i) for i, at in enumerate(times)))
    assert_all_the_same(a_spec, log, [size] * (149 // size))


def test_closed_windows_that_cannot_be_revised_take_no_memory() -> None:
    a_spec = spec("1s", "3s", grace_ns=0, retain_ns=10 * SECOND, max_future_ns=CENTURIES)
    with reading("columns"):
        an_engine = BarEngine(a_spec, TidegateCodec(), "ticks", 3)
        for n in range(300):
            an_engine.apply(records(value(ts_ns=T0 + n * SECOND), start=n), 0)
            an_engine.changed()
    assert len(an_engine._upkeep.board._windows.rows) < 100


def test_closed_windows_of_before_a_restart_are_forgotten() -> None:
    a_spec = spec("1s", grace_ns=0, retain_ns=10 * SECOND, max_future_ns=CENTURIES)
    before = BarEngine(a_spec, TidegateCodec(), "ticks", 3)
    before.apply(records(*(value(ts_ns=T0 + n * SECOND) for n in range(8))), 0)
    after = BarEngine(a_spec, TidegateCodec(), "ticks", 3)
    after.restore(before.changed())
    (book,) = after._books.values()
    assert len(book.closed.entries) == 7
    with reading("columns"):
        for n in range(8, 60):
            after.apply(records(value(ts_ns=T0 + n * SECOND), start=n), 0)
            after.changed()
    assert book.held
    assert not book.closed.entries


@pytest.mark.parametrize("sizes", [[1] * 5, [1, 3, 1], [4, 1]])
def test_sums_of_bars_that_are_too_large_for_the_tables_are_exact(sizes) -> None:
    """Each finer bar fits, and what they make together does not."""
    log, _ = one_each(*({"ts_ns": T0 + at * SECOND, "size": "3000000000"} for at in (0, 1, 2, 3, 20)))
    a_spec = spec("1s", "10s", grace_ns=5 * SECOND, max_future_ns=CENTURIES)
    assert_all_the_same(a_spec, log, sizes)
    bars = [bar for found in outcome("columns", a_spec, log, sizes)[:-1] for bar in found[0]]
    assert [bar.volume for bar in bars if bar.final and (bar.type, bar.start_ns) == ("10s", T0)] == [
        "12000000000"
    ]


def test_a_coarse_bar_that_ends_after_the_last_instant_is_made_all_the_same() -> None:
    times = [MAX_NS - n * SECOND for n in (20, 15, 10, 5, 2)]
    log, ones = one_each(*({"ts_ns": ts_ns} for ts_ns in times))
    a_spec = spec("1s", "1h", grace_ns=2 * SECOND, max_future_ns=CENTURIES)
    for sizes in (ones, [2, 2], [3]):
        assert_all_the_same(a_spec, log, sizes)


def test_what_comes_after_an_end_counts() -> None:
    """The end publishes open bars as final, and what comes in time after all is published again."""
    a_spec = spec("1s", "10s", grace_ns=5 * SECOND, max_future_ns=CENTURIES)
    first = records(*(value(ts_ns=T0 + at * SECOND) for at in (0, 1, 2)))
    more = records(*(value(ts_ns=T0 + at * SECOND) for at in (1, 2, 3, 30)), start=3)
    found = []
    for way, (codec, _) in WAYS.items():
        an_engine = BarEngine(a_spec, codec(), "ticks", 3)
        with reading(way):
            bars = an_engine.apply(first, 0).bars + an_engine.close()
            for record in more:
                bars += an_engine.apply([record], 0).bars
        found.append(in_order(bars))
        assert an_engine.changed()
    assert all(bars == found[0] for bars in found)
    counts = [(bar.type, bar.start_ns - T0, bar.trade_count) for bar in found[0] if bar.final]
    assert [count for kind, start, count in counts if (kind, start) == ("10s", 0)] == [3, 6]
    assert [count for kind, start, count in counts if (kind, start) == ("1s", SECOND)] == [1, 2]
    assert [count for kind, start, count in counts if (kind, start) == ("1s", 0)] == [1], (
        "nothing came for it"
    )


@pytest.mark.parametrize("odd_size", ["4000000000", "1"])
@pytest.mark.parametrize("way", WAYS)
def test_bars_of_a_batch_come_in_the_order_of_their_ends(way, odd_size) -> None:
    """Of instruments in tables, and with one that no table holds."""
    a_spec = spec("1s", "2s", grace_ns=3 * SECOND, max_future_ns=CENTURIES)
    with reading(way):
        an_engine = BarEngine(a_spec, WAYS[way][0](), "ticks", 3)
        for start, seconds in ((0, (0, 1, 2)), (9, (50,))):
            log = records(
                *(
                    value(symbol=symbol, ts_ns=T0 + at * SECOND, size=size)
                    for symbol, size in (("B", "1"), ("A", odd_size), ("C", "2"))
                    for at in seconds
                ),
                start=start,
            )
            bars = an_engine.apply(log, 0).bars
    assert {bar.instrument for bar in bars} == {"A", "B", "C"}
    assert [bar.end_ns for bar in bars] == sorted(bar.end_ns for bar in bars)
    assert len(bars) == 3 * 5


@pytest.mark.parametrize("names", [("1s", "1m"), ("10s", "1m"), ("1m",), ("1s", "10s")])
def test_state_is_read_where_a_bar_type_was_taken_away(names) -> None:
    rest = {"grace_ns": SECOND, "retain_ns": 30 * SECOND, "max_future_ns": CENTURIES}
    a_spec, then = spec("1s", "10s", "1m", **rest), spec(*names, **rest)
    log = records(*(value(ts_ns=T0 + (n - n % 9 // 8 * 12) * SECOND, trade_id=n) for n in range(90)))
    for restart in (1, 3):
        assert_all_the_same(a_spec, log, [10] * 9, restart=restart, then=then)


@pytest.mark.parametrize("names", [("1s", "1m"), ("10s", "1m"), ("1m",)])
def test_closed_windows_stay_what_they_are_where_a_bar_type_was_taken_away(names) -> None:
    rest = {"grace_ns": 0, "retain_ns": 99 * SECOND, "max_future_ns": CENTURIES}
    log = records(*(value(ts_ns=T0 + at * SECOND) for at in (0, 11, 61, 62, 63)))
    rows: dict[str, bytes | None] = {}
    known = []
    with reading("columns"):
        for n, its in enumerate([("1s", "10s", "1m"), names, names]):
            an_engine = BarEngine(spec(*its, **rest), TidegateCodec(), "ticks", 3)
            an_engine.restore({key: row for key, row in rows.items() if row is not None})
            known.append(
                {key: astuple(w) for b in an_engine._books.values() for key, w in b.closed.entries.items()}
            )
            an_engine.apply(log[:3] if n == 0 else log[2 + n : 3 + n], 0)
            rows |= an_engine.changed()
    first = {key: window for key, window in known[1].items() if window[0] in names}
    assert len(first) >= len(names)
    assert {key: known[2].get(key) for key in first} == first


def test_a_bar_that_was_published_early_does_not_keep_its_instrument_off_the_tables() -> None:
    """Neither while it has trades of its own, nor while all of them are in finer ones."""
    a_spec = spec("1s", "10s", "1m", grace_ns=0, max_future_ns=CENTURIES)
    log, ones = one_each(*({"ts_ns": T0 + at * SECOND // 2, "trade_id": at} for at in range(30)))
    with reading("columns"):
        an_engine = BarEngine(a_spec, TidegateCodec(), "ticks", 3)
        for number, record in enumerate(log):
            an_engine.apply([record], 0)
            (book,) = an_engine._books.values()
            assert book.held, number
            an_engine.idle(CENTURIES - 1)
            assert not book.held
    for restart in (-1, 3, 4, 5):
        assert_all_the_same(a_spec, log, ones, restart=restart)
        assert_all_the_same(a_spec, log, [2] * 14, restart=restart)


@pytest.mark.parametrize("way", WAYS)
def test_a_bar_made_of_one_that_was_published_early_is_published_early_itself(way) -> None:
    a_spec = spec("1s", "10s", grace_ns=5 * SECOND, max_future_ns=CENTURIES)
    found = []
    with reading(way):
        an_engine = BarEngine(a_spec, WAYS[way][0](), "ticks", 3)
        for number, (at, now) in enumerate(((0, 8), (12, 60))):
            an_engine.apply(records(value(ts_ns=T0 + at * SECOND), start=number), T0)
            bars = an_engine.idle(T0 + now * SECOND)
            found.append([(bar.type, bar.start_ns - T0) for bar in bars])
    assert found == [[("1s", 0)], [("10s", 0), ("1s", 12 * SECOND), ("10s", 10 * SECOND)]]


def test_a_vwap_near_a_tie_is_rounded_exactly() -> None:
    """Of volumes beyond 2**53 units, where a float would not tell."""
    log, _ = one_each(
        {"price": "1.500000000", "size": "1423257035.763484561"},
        {"price": "1.500000001", "size": "326685843.946940320"},
        {"ts_ns": T0 + 9 * SECOND},
    )
    assert_all_the_same(A_SPEC, log, [2])
    bars = outcome("columns", A_SPEC, log, [2])[1][0]
    assert [bar.vwap for bar in bars if bar.type == "1s" and bar.start_ns == T0] == ["1.500000000186683719"]


def test_closed_windows_that_late_ticks_ask_for_take_no_memory() -> None:
    a_spec = spec("1s", grace_ns=0, retain_ns=10 * SECOND, max_future_ns=CENTURIES)
    with reading("columns"):
        an_engine = BarEngine(a_spec, TidegateCodec(), "ticks", 3)
        for n in range(300):
            for which, at in enumerate((n, max(n - 5, 0))):
                an_engine.apply(records(value(ts_ns=T0 + at * SECOND), start=2 * n + which), 0)
                an_engine.changed()
    (book,) = an_engine._books.values()
    assert len(book.closed.entries) < 100


def test_bars_may_be_revised_for_ever() -> None:
    log, ones = one_each(*({"ts_ns": T0 + at * SECOND} for at in (0, 5, 10, 1, 15)))
    assert_all_the_same(spec("1s", retain_ns=2**63, max_future_ns=CENTURIES), log, ones)
