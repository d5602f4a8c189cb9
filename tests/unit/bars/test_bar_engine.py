"""One situation each: what becomes of a tick, and when a bar is published."""

import pytest
from barlog import SECOND, T0, Reader, Rec, engine, finished, log, spec, trade

from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import render
from streams.bars.engine import BarEngine
from streams.bars.types import Counts


def kinds(output):
    return [(letter.offset, letter.index, letter.reason) for _, letter in output.dead]


def brief(bars):
    return [((bar.start_ns - T0) / SECOND, bar.type, bar.volume, bar.revision, bar.final) for bar in bars]


def test_a_bar_says_all_there_is_to_say() -> None:
    ticks = log(
        trade(60, "10.5", "0.1", 7, side=1, venue="V"),
        trade(61, "10.7", "0.2", 8, side=-1, venue="V"),
        trade(62, "10.4", "0", 9, venue="V", count=3),
        trade(122, venue="V"),
        start=40,
    )
    (bar,) = engine(spec("1m")).apply(ticks, 0).bars
    assert {name: getattr(bar, name) for name in bar.__struct_fields__} == {
        "instrument": "V:A",
        "symbol": "A",
        "venue": "V",
        "type": "1m",
        "start_ns": T0 + 60 * SECOND,
        "end_ns": T0 + 120 * SECOND,
        "open": "10.5",
        "high": "10.7",
        "low": "10.4",
        "close": "10.4",
        "volume": "0.3",
        "turnover": "3.19",
        "vwap": "10.633333333333333333",
        "trade_count": 5,
        "buy_volume": "0.1",
        "sell_volume": "0.2",
        "first_trade_id": "7",
        "last_trade_id": "9",
        "first_offset": 40,
        "last_offset": 42,
        "source_topic": "ticks",
        "source_partition": 3,
        "revision": 0,
        "final": True,
    }


@pytest.mark.parametrize(
    ("prices", "vwap"),
    [((0, 1), 0), ((1, 2), 2), ((2, 3), 2), ((-1, 0), 0), ((-2, -1), -2), ((1, 1, 2), 1), ((1, 2, 2), 2)],
)
def test_vwap_is_rounded_half_to_even(prices, vwap) -> None:
    (bar,) = finished(spec(), log(*(trade(0, render(price)) for price in prices))).held.values()
    assert bar.vwap == render(vwap)


def test_a_bar_without_volume_has_prices_and_no_vwap() -> None:
    (bar,) = finished(spec(), log(trade(0, "5", "0"), trade(0, "6", "0"))).held.values()
    assert (bar.open, bar.high, bar.volume, bar.turnover, bar.vwap) == ("5", "6", "0", "0", None)
    assert bar.trade_count == 2


def test_a_tick_on_the_boundary_opens_the_next_window() -> None:
    bars = engine(spec(grace_ns=0)).apply(log(trade(0), trade(0.999999999), trade(1)), 0).bars
    assert brief(bars) == [(0, "1s", "2", 0, True)]


def test_no_trade_no_bar() -> None:
    bars = finished(spec(), log(trade(0), trade(100))).held.values()
    assert [bar.start_ns for bar in bars] == [T0, T0 + 100 * SECOND]


def test_a_window_closes_when_the_watermark_is_past_its_end_by_the_grace() -> None:
    an_engine = engine(spec(grace_ns=2 * SECOND))
    assert an_engine.apply(log(trade(0), trade(2.999999999)), 0).bars == []
    assert brief(an_engine.apply(log(trade(3), start=2), 0).bars) == [(0, "1s", "1", 0, True)]


def test_within_one_timestamp_arrival_decides() -> None:
    ticks = log(trade(1, "5", trade_id="a"), trade(1, "6", trade_id="b"), trade(1, "4", trade_id="c"))
    (bar,) = finished(spec(), ticks).held.values()
    assert (bar.open, bar.close, bar.first_trade_id, bar.last_trade_id) == ("5", "4", "a", "c")


def test_open_and_close_go_by_event_time_not_by_arrival() -> None:
    ticks = log(trade(0.5, "5"), trade(0.9, "9"), trade(0.1, "1"), trade(0.7, "7"), trade(0.1, "2"))
    (bar,) = finished(spec(), ticks).held.values()
    assert (bar.open, bar.close, bar.first_offset, bar.last_offset) == ("1", "9", 0, 4)


def test_one_instruments_clock_closes_no_window_of_another() -> None:
    output = engine().apply(log(trade(0), trade(0, symbol="B"), trade(100, symbol="B")), 0)
    assert [bar.instrument for bar in output.bars] == ["B"]


def test_the_same_symbol_at_two_venues_is_two_instruments() -> None:
    an_engine = engine()
    an_engine.apply(log(trade(0, venue="SPOT"), trade(0, venue="FUTURES"), trade(0)), 0)
    assert list(an_engine.instruments) == ["SPOT:A", "FUTURES:A", "A"]


class TestBadRecords:
    def test_a_malformed_record_is_a_dead_letter_alone(self) -> None:
        codec = get_codec("tidegate")
        good = b'{"symbol":"A","ts_ns":%d,"price":"1","size":"0.1"}' % T0
        records = [Rec(0, good), Rec(1, good[:-9]), Rec(2, None), Rec(3, good)]
        an_engine = BarEngine(spec(), codec, "ticks", 3)
        output = an_engine.apply(records, 5 * SECOND)
        assert [(record, letter.offset, letter.reason) for record, letter in output.dead] == [
            (records[1], 1, Reason.malformed),
            (records[2], 2, Reason.empty),
        ]
        letter = output.dead[0][1]
        assert (letter.topic, letter.partition, letter.timestamp_ms, letter.ts) == (
            "ticks",
            3,
            T0 // 10**6,
            5.0,
        )
        assert output.counts == Counts(ticks=4, accepted=2, dead_lettered=2)
        assert [bar.volume for bar in an_engine.close()] == ["0.2"]

    def test_a_record_that_cannot_be_decoded_counts_as_one_tick(self) -> None:
        output = engine().apply([Rec(0, BadTick(Reason.not_a_number, "price: NaN"))], 0)
        assert output.counts == Counts(ticks=1, dead_lettered=1)
        assert output.dead[0][1].detail == "price: NaN"

    def test_a_message_without_a_trade_is_ignored(self) -> None:
        assert engine().apply([Rec(0, ())], 0).counts == Counts(ignored=1)


class TestFuture:
    def test_a_tick_dated_tomorrow_is_a_dead_letter_and_moves_no_watermark(self) -> None:
        an_engine = engine(spec(max_future_ns=10 * SECOND))
        tomorrow = Rec(1, (trade(86400),), T0 // 10**6)
        output = an_engine.apply([*log(trade(0)), tomorrow, *log(trade(1), start=2)], 0)
        assert kinds(output) == [(1, 0, Reason.future)]
        assert output.dead[0][1].detail == "dated 86400 s ahead of its receipt, 10 s are allowed"
        assert output.bars == []
        assert output.counts == Counts(ticks=3, accepted=2, dead_lettered=1)

    @pytest.mark.parametrize(
        ("recv", "stamp", "taken"),
        [
            (None, 0, True),
            (0, None, True),
            (0, -1, True),
            (None, -1, False),
            (None, None, False),
            (-11, 0, False),
            (0, -11, False),
            (99, -11, False),
            (0, 99, True),
        ],
    )
    def test_it_is_judged_by_the_earlier_of_receive_time_and_record_timestamp(
        self, recv, stamp, taken
    ) -> None:
        tick = trade(0, recv_ns=None if recv is None else T0 + recv * SECOND)
        timestamp = stamp if stamp in (None, -1) else T0 // 10**6 + stamp * 1000
        output = engine().apply([Rec(0, (tick,), timestamp)], 0)
        assert output.counts.accepted == taken
        assert [reason for _, _, reason in kinds(output)] == ([] if taken else [Reason.future])

    def test_the_allowance_itself_is_allowed(self) -> None:
        records = [Rec(0, (trade(10),), T0 // 10**6), Rec(1, (trade(10.000000001),), T0 // 10**6)]
        assert kinds(engine().apply(records, 0)) == [(1, 0, Reason.future)]

    def test_the_others_in_its_record_are_taken(self) -> None:
        records = [Rec(0, (trade(0), trade(99), trade(1)), T0 // 10**6)]
        output = engine().apply(records, 0)
        assert kinds(output) == [(0, 1, Reason.future)]
        assert output.counts.accepted == 2


class TestDuplicates:
    def test_a_trade_id_counts_once(self) -> None:
        reader = finished(spec(), log(trade(0, trade_id=1), trade(0, trade_id=1), trade(0, trade_id="1")))
        assert reader.counts == Counts(ticks=3, accepted=2, duplicates=1)
        assert [bar.volume for bar in reader.held.values()] == ["2"]

    def test_ticks_without_an_id_are_never_duplicates(self) -> None:
        assert finished(spec(), log(trade(0), trade(0))).counts.accepted == 2

    def test_ids_are_of_their_instrument(self) -> None:
        ticks = log(trade(0, trade_id=1), trade(0, trade_id=1, symbol="B"), trade(0, trade_id=1, venue="V"))
        assert finished(spec(), ticks).counts.duplicates == 0

    def test_it_can_be_off(self) -> None:
        ticks = log(trade(0, trade_id=1), trade(0, trade_id=1))
        assert finished(spec(dedupe_ns=None), ticks).counts.duplicates == 0

    def test_an_id_is_forgotten_at_the_nanosecond(self) -> None:
        a_spec = spec(dedupe_ns=5 * SECOND)
        copy = trade(5, trade_id=1)
        held = log(trade(0, trade_id=1), trade(5), copy)
        gone = log(trade(0, trade_id=1), trade(5.000000001), copy)
        assert finished(a_spec, held).counts.duplicates == 1
        assert finished(a_spec, gone).counts.duplicates == 0

    def test_an_id_that_counts_again_is_remembered_from_then_on(self) -> None:
        ticks = log(trade(0, trade_id=1), trade(9), trade(9, trade_id=1), trade(10, trade_id=1))
        assert finished(spec(dedupe_ns=5 * SECOND), ticks).counts.duplicates == 1

    def test_a_copy_dated_ahead_moves_no_watermark(self) -> None:
        output = engine().apply(log(trade(0, trade_id=1), trade(50, trade_id=1), trade(0)), 0)
        assert output.counts == Counts(ticks=3, accepted=2, duplicates=1)

    def test_a_copy_of_a_late_tick_is_a_duplicate(self) -> None:
        ticks = log(trade(50), trade(0, trade_id=1), trade(0, trade_id=1))
        assert finished(spec(), ticks).counts == Counts(ticks=3, accepted=2, late=1, duplicates=1)

    def test_the_copy_of_a_tick_later_than_the_memory_is_a_duplicate_too(self) -> None:
        ticks = log(trade(50), trade(0, trade_id=1), trade(60), trade(0, trade_id=1), trade(61))
        counts = finished(spec(dedupe_ns=10 * SECOND), ticks).counts
        assert counts == Counts(ticks=5, accepted=4, late=1, duplicates=1)

    def test_what_did_not_count_is_not_remembered(self) -> None:
        late = trade(0, trade_id=1)
        output = engine(spec(late="drop")).apply(log(trade(50), late, late, trade(50, trade_id=1)), 0)
        assert output.counts == Counts(ticks=4, accepted=2, late=2, dropped=2)

    def test_forgetting_in_bulk_keeps_what_still_counts(self) -> None:
        many = [trade(0, trade_id=i) for i in range(40)]
        ticks = log(*many[:32], trade(5, trade_id="the 33rd"), many[0])
        assert finished(spec(dedupe_ns=5 * SECOND), ticks).counts.duplicates == 1

    @pytest.mark.parametrize("keep_state", [True, False])
    def test_the_memory_is_bounded_by_time(self, keep_state) -> None:
        an_engine = engine(spec("1s", dedupe_ns=SECOND, retain_ns=SECOND), keep_state=keep_state)
        for second in range(300):
            ticks = log(*(trade(second, trade_id=10 * second + i) for i in range(10)), start=10 * second)
            an_engine.apply(ticks, 0)
            if keep_state:
                an_engine.changed()
        (book,) = an_engine._books.values()
        assert len(book.seen) < 100
        assert len(book.closed.entries) < 50
        assert sum(1 for _ in book.open_windows()) <= 4


class TestLate:
    def test_within_grace_a_tick_is_not_late(self) -> None:
        output = engine(spec(grace_ns=2 * SECOND)).apply(log(trade(10), trade(8), trade(7.999999999)), 0)
        assert output.counts == Counts(ticks=3, accepted=3, late=1)

    def test_a_late_tick_revises_its_closed_bar(self) -> None:
        an_engine = engine()
        first = an_engine.apply(log(trade(0, "5"), trade(9)), 0)
        again = an_engine.apply(log(trade(0.5, "7"), trade(0.6, "6"), start=2), 0)
        assert brief(first.bars) == [(0, "1s", "1", 0, True)]
        assert brief(again.bars) == [(0, "1s", "3", 2, True)]
        assert (again.bars[0].open, again.bars[0].high, again.bars[0].close) == ("5", "7", "6")
        assert again.counts == Counts(ticks=2, accepted=2, late=2)

    def test_closed_and_revised_in_one_batch_is_published_once(self) -> None:
        bars = engine().apply(log(trade(0), trade(9), trade(0)), 0).bars
        assert brief(bars) == [(0, "1s", "2", 1, True)]

    def test_bars_come_in_order_of_their_windows_whatever_changed_first(self) -> None:
        an_engine = engine()
        an_engine.apply(log(trade(0), trade(3), trade(9)), 0)
        bars = an_engine.apply(log(trade(20), trade(3), trade(0), start=3), 0).bars
        assert brief(bars) == [(0, "1s", "2", 1, True), (3, "1s", "2", 1, True), (9, "1s", "1", 0, True)]

    def test_a_late_tick_counts_in_open_windows_without_a_revision(self) -> None:
        an_engine = engine(spec("1s", "1m"))
        an_engine.apply(log(trade(0), trade(9)), 0)
        assert brief(an_engine.apply(log(trade(0), start=2), 0).bars) == [(0, "1s", "2", 1, True)]
        assert brief(an_engine.close()) == [(9, "1s", "1", 0, True), (0, "1m", "3", 0, True)]

    def test_a_late_tick_of_a_window_that_never_was_makes_it(self) -> None:
        an_engine = engine()
        an_engine.apply(log(trade(9)), 0)
        assert brief(an_engine.apply(log(trade(1), start=1), 0).bars) == [(1, "1s", "1", 0, True)]
        assert brief(an_engine.apply(log(trade(1), start=2), 0).bars) == [(1, "1s", "2", 1, True)]

    def test_beyond_retention_it_is_a_dead_letter_for_all_bar_types_alike(self) -> None:
        an_engine = engine(spec("1s", "1h", grace_ns=2 * SECOND, retain_ns=5 * SECOND))
        output = an_engine.apply(log(trade(100), trade(93), trade(92.999999999)), 0)
        assert kinds(output) == [(2, 0, Reason.late)]
        detail = "7.000000001 s behind the instrument's newest tick, 7 s are allowed"
        assert output.dead[0][1].detail == detail
        assert output.counts == Counts(ticks=3, accepted=2, late=2, dead_lettered=1)
        assert brief(an_engine.close()) == [(100, "1s", "1", 0, True), (0, "1h", "2", 0, True)]

    def test_the_policy_may_be_dead_letters(self) -> None:
        output = engine(spec(late="dead-letter")).apply(log(trade(9), trade(1)), 0)
        assert kinds(output) == [(1, 0, Reason.late)]
        assert output.dead[0][1].detail == "8 s behind the instrument's newest tick, 2 s are allowed"
        assert output.counts == Counts(ticks=2, accepted=1, late=1, dead_lettered=1)

    def test_the_policy_may_be_to_drop_and_then_it_is_counted(self) -> None:
        output = engine(spec(late="drop")).apply(log(trade(9), trade(1)), 0)
        assert output.dead == []
        assert output.counts == Counts(ticks=2, accepted=1, late=1, dropped=1)


class TestIdle:
    def test_a_quiet_instruments_bar_is_published_early_once_and_then_again_as_final(self) -> None:
        an_engine = engine(spec(idle_ns=5 * SECOND))
        an_engine.apply(log(trade(0)), T0)
        assert an_engine.idle(T0 + 5 * SECOND - 1) == []
        early = an_engine.idle(T0 + 5 * SECOND)
        assert brief(early) == [(0, "1s", "1", 0, False)]
        assert an_engine.idle(T0 + 99 * SECOND) == []
        final = an_engine.apply(log(trade(100), start=1), T0 + 100 * SECOND).bars
        assert brief(final) == [(0, "1s", "1", 0, True)]
        assert final[0].last_offset == early[0].last_offset

    def test_it_makes_nothing_late_and_closes_nothing(self) -> None:
        an_engine = engine(spec(grace_ns=SECOND))
        an_engine.apply(log(trade(0)), T0)
        an_engine.idle(T0 + 99 * SECOND)
        output = an_engine.apply(log(trade(0), trade(0.5), start=1), T0 + 99 * SECOND)
        assert output.counts == Counts(ticks=2, accepted=2)
        assert output.bars == []
        assert brief(an_engine.idle(T0 + 999 * SECOND)) == [(0, "1s", "3", 0, False)]

    def test_a_window_is_not_published_before_its_end_and_the_grace(self) -> None:
        an_engine = engine(spec("1s", "1m", idle_ns=SECOND, grace_ns=2 * SECOND))
        an_engine.apply(log(trade(0)), T0)
        assert [bar.type for bar in an_engine.idle(T0 + 3 * SECOND)] == ["1s"]
        assert an_engine.idle(T0 + 62 * SECOND - 1) == []
        assert [bar.type for bar in an_engine.idle(T0 + 62 * SECOND)] == ["1m"]

    def test_an_instrument_with_ticks_is_not_idle(self) -> None:
        an_engine = engine(spec(idle_ns=5 * SECOND, grace_ns=60 * SECOND))
        for second in range(0, 100, 4):
            an_engine.apply(log(trade(second / 10), start=second), T0 + second * SECOND)
            assert an_engine.idle(T0 + second * SECOND) == []
        assert len(an_engine.idle(T0 + 101 * SECOND)) == 10

    def test_its_cost_is_that_of_the_instruments_that_are_quiet(self) -> None:
        an_engine = engine()
        an_engine.apply(log(*(trade(0, symbol=f"S{i}") for i in range(1000))), T0)
        assert len(an_engine.idle(T0 + 5 * SECOND)) == 1000
        assert an_engine._upkeep.idle._alarms == []
        an_engine.apply(log(trade(0, symbol="S5"), start=1000), T0 + 6 * SECOND)
        assert [bar.instrument for bar in an_engine.idle(T0 + 11 * SECOND)] == ["S5"]


class TestClose:
    def test_the_end_of_a_finite_input_publishes_what_is_open_as_final(self) -> None:
        an_engine = engine(spec("1s", "1m"))
        reader = Reader()
        reader.take(an_engine.apply(log(trade(0), trade(1), trade(9)), T0))
        an_engine.idle(T0 + 30 * SECOND)
        assert brief(an_engine.close()) == [(9, "1s", "1", 0, True), (0, "1m", "3", 0, True)]
        assert an_engine.close() == []

    def test_what_comes_after_all_makes_a_newer_version(self) -> None:
        an_engine = engine()
        an_engine.apply(log(trade(0)), 0)
        an_engine.close()
        bars = an_engine.apply(log(trade(0.5), trade(9), start=1), 0).bars
        assert brief(bars) == [(0, "1s", "2", 0, True)]
        assert bars[0].last_offset == 1

    def test_what_has_been_published_as_final_is_not_published_again_when_it_closes(self) -> None:
        an_engine = engine()
        an_engine.apply(log(trade(0)), 0)
        assert len(an_engine.close()) == 1
        assert an_engine.apply(log(trade(9), start=1), 0).bars == []


def test_the_position_is_that_of_the_last_record() -> None:
    an_engine = engine()
    assert an_engine.position == -1
    an_engine.apply([*log(trade(0)), Rec(8, ())], 0)
    assert an_engine.position == 8
    an_engine.apply([], 0)
    assert an_engine.position == 8


def test_a_record_applied_before_is_passed_over() -> None:
    an_engine = engine()
    records = [Rec(0, (trade(0), trade(0), trade(0, symbol="B"))), Rec(1, (trade(1),))]
    an_engine.apply(records, 0)
    assert an_engine.apply([*records, Rec(2, ())], 0).counts == Counts(ignored=1)
    assert {bar.instrument: bar.volume for bar in an_engine.close() if bar.start_ns == T0} == {
        "A": "2",
        "B": "1",
    }
