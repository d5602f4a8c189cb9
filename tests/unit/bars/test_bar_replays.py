"""Dead letters that come again: each of their ticks counts once, in its bar."""

import pytest
from barlog import SECOND, T0, Reader, Rec, engine, spec, trade

from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.replay import REPLAY_HEADER, Replay, encode_replay
from streams.bars.types import Counts

NOW_MS = (T0 + 1000 * SECOND) // 10**6


def replayed(offset, trades, of=(1, 0), topic="ticks", partition=3, timestamp=NOW_MS):
    """A replay of the record at offset `of[0]`, for its trade `of[1]`."""
    header = (REPLAY_HEADER, encode_replay(Replay(topic, partition, *of)))
    return Rec(offset, trades, timestamp, headers=[("trace", b"1"), header])


def fresh(offset, *trades):
    """A record that was received when its last trade happened."""
    return Rec(offset, trades, trades[-1].ts_ns // 10**6)


def started(a_spec, *ats):
    """An engine with a trade at each of these seconds."""
    an_engine, reader = engine(a_spec), Reader()
    for offset, at in enumerate(ats):
        reader.take(an_engine.apply([fresh(offset, trade(at))], 0))
    return an_engine, reader


def test_a_tick_dated_ahead_of_its_own_receipt_is_judged_by_the_receipt_of_the_replay() -> None:
    an_engine, _ = started(spec(), 0)
    ahead = trade(50, recv_ns=T0)
    first = an_engine.apply([Rec(1, (ahead,))], 0)
    again = an_engine.apply([replayed(2, (ahead,), (1, 0), timestamp=(T0 + 39 * SECOND) // 10**6)], 0)
    at_last = an_engine.apply([replayed(3, (ahead,), (1, 0), timestamp=(T0 + 40 * SECOND) // 10**6)], 0)

    assert [output.counts.dead_lettered for output in (first, again, at_last)] == [1, 1, 0]
    assert at_last.counts.accepted == 1


@pytest.mark.parametrize("late", ["revise", "dead-letter"])
def test_a_replayed_tick_revises_its_closed_bar(late) -> None:
    an_engine, reader = started(spec("1s", late=late), 0, 0.5, 9)
    output = reader.take(an_engine.apply([replayed(7, (trade(0.2, price="3"),), (5, 0))], 0))

    (bar,) = output.bars
    assert (bar.start_ns, bar.revision, bar.trade_count, bar.high, bar.last_offset) == (T0, 1, 3, "3", 7)
    assert bar.final
    assert output.counts == Counts(ticks=1, accepted=1, late=1)


def test_under_the_policy_of_dead_letters_only_a_replay_revises() -> None:
    an_engine, _ = started(spec("1s", late="dead-letter"), 0, 9)

    refused = an_engine.apply([fresh(2, trade(9), trade(0.5))], 0)
    revised = an_engine.apply([replayed(3, (trade(9), trade(0.5)), (2, 1))], 0)

    assert [(letter.reason, letter.index) for _, letter in refused.dead] == [(Reason.late, 1)]
    assert "8.5 s behind the instrument's newest tick, 2 s are allowed" in refused.dead[0][1].detail
    assert [(bar.start_ns, bar.revision) for bar in revised.bars] == [(T0, 1)]


@pytest.mark.parametrize("late", ["revise", "dead-letter", "drop"])
def test_beyond_what_is_retained_a_replay_is_a_dead_letter_again_and_is_never_dropped(late) -> None:
    an_engine, reader = started(spec("1s", late=late, retain_ns=3 * SECOND), 0, 9)
    output = reader.take(an_engine.apply([replayed(7, (trade(0.2),), (5, 0))], 0))

    assert output.bars == []
    assert output.counts == Counts(ticks=1, late=1, dead_lettered=1)
    assert output.dead[0][1].reason is Reason.late


@pytest.mark.parametrize("trade_id", [None, "id"])
@pytest.mark.parametrize("dedupe_ns", [None, 0, 360 * SECOND])
def test_replayed_twice_it_counts_once_whatever_its_id_and_the_memory_of_ids(trade_id, dedupe_ns) -> None:
    an_engine, reader = started(spec("1s", dedupe_ns=dedupe_ns), 0, 9)
    tick = trade(0.5, trade_id=trade_id)
    reader.take(an_engine.apply([replayed(2, (tick,), (1, 0)), replayed(3, (tick,), (1, 0))], 0))
    reader.take(an_engine.apply([fresh(4, trade(200))], 0))
    again = reader.take(an_engine.apply([replayed(5, (tick,), (1, 0))], 0))

    assert again.counts == Counts(ticks=1, duplicates=1)
    assert reader.counts.accepted == 4
    assert reader.held[f"A|1s|{T0}".encode()].trade_count == 2


def test_ticks_without_ids_that_are_alike_are_two_where_they_were_two() -> None:
    an_engine, reader = started(spec("1s"), 0, 9)
    trades = (trade(0.5), trade(0.5))
    reader.take(an_engine.apply([replayed(2, trades, (1, 0)), replayed(3, trades, (1, 1))], 0))

    assert reader.held[f"A|1s|{T0}".encode()].trade_count == 3
    assert reader.counts.duplicates == 0


@pytest.mark.parametrize("late", ["revise", "dead-letter"])
@pytest.mark.parametrize("dedupe_ns", [None, SECOND])
@pytest.mark.parametrize("name", ["1s", "1h"])
def test_a_replay_is_known_again_after_a_restart_and_after_ids_were_forgotten(name, dedupe_ns, late) -> None:
    a_spec = spec(name, dedupe_ns=dedupe_ns, late=late)
    an_engine, _ = started(a_spec, 0, 9)
    rows = {}
    an_engine.apply([replayed(2, (trade(0.5),), (1, 0))], 0)
    for i in range(400):  # first so many at once that they become a row, then so few that it is of no use
        at = 10 + i / 1000 if i < 200 else i / 10
        an_engine.apply([fresh(3 + i, trade(at, trade_id=i))], 0)
        if not i % 50:
            rows |= an_engine.changed()
    rows |= an_engine.changed()
    restored = engine(a_spec)
    restored.restore({row_name: row for row_name, row in rows.items() if row is not None})

    for each in (an_engine, restored):
        again = each.apply([replayed(900, (trade(0.5),), (1, 0))], 0)
        assert again.counts == Counts(ticks=1, duplicates=1)
        another = each.apply([replayed(901, (trade(0.5),), (5, 0))], 0)
        assert another.counts == Counts(ticks=1, accepted=1, late=1)
        assert [(bar.revision, bar.trade_count) for bar in another.bars] == ([(2, 3)] if name == "1s" else [])


def test_of_a_record_of_many_only_the_refused_trade_counts() -> None:
    an_engine, reader = started(spec("1s"), 0, 9)
    trades = (trade(8), trade(0.5), trade(8.2))
    output = reader.take(an_engine.apply([replayed(2, trades, (1, 1))], 0))

    assert output.counts == Counts(ticks=1, accepted=1, late=1, skipped=2)
    assert [(bar.start_ns, bar.trade_count) for bar in output.bars] == [(T0, 2)]


def test_a_record_that_was_refused_whole_counts_whole_and_once() -> None:
    an_engine, reader = started(spec("1s"), 0)
    trades = (trade(0.1), trade(0.2))
    reader.take(an_engine.apply([replayed(2, trades, (1,)), replayed(3, trades, (1,))], 0))

    assert reader.counts == Counts(ticks=5, accepted=3, duplicates=2)


def test_what_comes_back_tells_of_the_original_and_of_the_replay() -> None:
    an_engine, _ = started(spec("1s", retain_ns=0), 0, 9)
    (late,) = an_engine.apply([replayed(7, (trade(8), trade(0.2)), (5, 1))], 0).dead
    (garbage,) = an_engine.apply([replayed(8, BadTick(Reason.malformed, "not JSON"), (6,))], 0).dead
    (elsewhere,) = an_engine.apply([replayed(9, (trade(0.2),), (5, 0), "other", 1)], 0).dead

    found = [(letter.reason, letter.origin, letter.replayed) for _, letter in (late, garbage, elsewhere)]
    assert found == [
        (Reason.late, "ticks[3]@5#1", "ticks[3]@7"),
        (Reason.malformed, "ticks[3]@6#0", "ticks[3]@8"),
        (Reason.late, "other[1]@5#0", "ticks[3]@9"),
    ]


@pytest.mark.parametrize("value", [b"{", None, b'{"topic":"t","partition":3,"offset":"5"}'])
def test_where_the_header_cannot_be_read_nothing_counts(value) -> None:
    an_engine, _ = started(spec("1s"), 0)
    output = an_engine.apply([Rec(5, (trade(0.1),), NOW_MS, headers=[(REPLAY_HEADER, value)])], 0)

    assert output.counts == Counts(ticks=1, dead_lettered=1)
    ((_, letter),) = output.dead
    assert (letter.reason, letter.origin, letter.replayed) == (Reason.malformed, "ticks[3]@5#0", None)
    assert "tidegate-replay" in letter.detail


@pytest.mark.parametrize("trades", [(), (trade(0.1),)])
def test_where_the_record_has_no_such_trade_it_is_a_dead_letter(trades) -> None:
    an_engine, _ = started(spec("1s"), 0)
    output = an_engine.apply([replayed(5, trades, (1, 1))], 0)

    assert output.counts == Counts(ticks=1, dead_lettered=1)
    assert [(letter.reason, letter.origin) for _, letter in output.dead] == [
        (Reason.malformed, "ticks[3]@1#1")
    ]
