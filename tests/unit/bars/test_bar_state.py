"""Stopping anywhere and going on from the state rows gives the bars of not stopping."""

from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import msgspec
import pytest
from barlog import SECOND, T0, GivenTrades, Reader, Rec, batches, engine, finished, log, spec, trade
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuts, durations, logs, specs

from schemas.dead_letter import Reason
from schemas.errors import BadTick, StateError
from schemas.fixed import parse
from streams.bars import memory, state
from streams.bars.engine import BarEngine
from streams.bars.state import POSITION
from streams.bars.types import Counts, Late


@contextmanager
def short():
    """Rows are split and memories forget in logs as short as those of hypothesis."""
    with (
        mock.patch.object(memory, "_ROOM", 1),
        mock.patch.object(state, "_FEW_IDS", 3),
        mock.patch.object(state, "_FEW_WINDOWS", 2),
        mock.patch.object(state, "_PART_ITEMS", 2),
    ):
        yield


class Changelog(dict):
    """A compacted topic."""

    def write(self, rows, up_to=None):
        for key, row in list(rows.items())[:up_to]:
            if row is None:
                self.pop(key, None)
            else:
                self[key] = row


def restored(a_spec, rows):
    an_engine = engine(a_spec)
    an_engine.restore(dict(rows))
    return an_engine


@given(specs, logs(), cuts)
def test_a_restart_between_any_two_batches_changes_no_output(a_spec, records, sizes) -> None:
    with short():
        steady, restarting, changelog = engine(a_spec), engine(a_spec), Changelog()
        for batch in batches(records, sizes):
            expected, output = steady.apply(batch, 0), restarting.apply(batch, 0)
            assert (output.bars, output.counts) == (expected.bars, expected.counts)
            changelog.write(restarting.changed())
            restarting = restored(a_spec, changelog)
        assert sorted(map(repr, restarting.close())) == sorted(map(repr, steady.close()))
        assert list(restarting.instruments) == list(changelog_heads(changelog))


def changelog_heads(changelog):
    return [key for key in changelog if key and "|" not in key]


crashes = st.lists(st.sampled_from(["go on", "checkpoint", "checkpoint", "crash", 1, 2, 3, 5]), max_size=12)


@given(specs, logs(), cuts, crashes)
def test_crashes_anywhere_even_amid_a_checkpoint_change_no_bar(a_spec, records, sizes, events) -> None:
    with short():
        reader, an_engine, changelog, committed = Reader(), engine(a_spec), Changelog(), 0
        at, sizes = 0, iter(sizes)
        for event in events:
            batch = records[at : at + next(sizes, 3)]
            reader.take(an_engine.apply(batch, 0))
            at += len(batch)
            if event == "checkpoint":
                changelog.write(an_engine.changed())
                committed = at
            elif event != "go on":
                if event != "crash":
                    changelog.write(an_engine.changed(), up_to=event)
                an_engine, at = restored(a_spec, changelog), committed
        reader.take(an_engine.apply(records[at:], 0))
        reader.read(an_engine.close())
        assert reader.held == finished(a_spec, records).held


@given(specs, logs(), st.integers(0, 40), st.integers(0, 40))
def test_what_a_row_holds_is_skipped_and_counted(a_spec, records, applied, read_again) -> None:
    records = [record for record in records if isinstance(record.value, list) and not record.headers]
    applied = min(applied, len(records))
    first = engine(a_spec)
    first.apply(records[:applied], 0)
    rows = first.changed()
    position = rows.pop(POSITION, None)  # as where the writing was cut off before it
    again = restored(a_spec, rows)
    start = min(read_again, applied)
    counts = again.apply(records[start:applied], 0).counts
    skipped = sum(len(record.value) for record in records[start:applied])
    ignored = sum(not record.value for record in records[start:applied])
    assert counts == Counts(skipped=skipped, ignored=ignored)
    assert not again.changed().keys() - {POSITION}
    if position is not None:
        whole = restored(a_spec, {**rows, POSITION: position})
        assert whole.position == records[applied - 1].offset
        assert whole.apply(records[start:applied], 0).counts == Counts()


@given(specs, specs, logs(), st.integers(0, 40))
def test_other_settings_after_a_restart_make_no_half_bars(before, after, records, at) -> None:
    after = replace(after, bar_types=before.bar_types)
    with short():
        reader, an_engine = Reader(), engine(before)
        taken = [an_engine.apply([record], 0) for record in records[:at]]
        an_engine_after = restored(after, an_engine.changed())
        taken += [an_engine_after.apply([record], 0) for record in records[at:]]
        for output in taken:
            reader.take(output)
        reader.read(an_engine_after.close())
    accepted = sum(
        sum(trade_.count for trade_ in record.value)
        for record, output in zip(records, taken, strict=True)
        if isinstance(record.value, list) and output.counts.accepted == len(record.value)
    )
    # Of a replayed record only one trade may count.
    partly = any(o.counts.skipped or 0 < o.counts.accepted < o.counts.ticks for o in taken)
    if not partly:
        for bar_type in before.bar_types:
            bars = [bar for bar in reader.held.values() if bar.type == bar_type.name]
            assert sum(bar.trade_count for bar in bars) == accepted


def test_early_publishing_is_remembered() -> None:
    first = engine()
    first.apply(log(trade(0)), T0)
    first.changed()
    assert len(first.idle(T0 + 9 * SECOND)) == 1
    again = restored(spec(), first.changed())
    assert again.idle(T0 + 10 * SECOND) == again.idle(T0 + 99 * SECOND) == []


def test_after_a_restart_an_instrument_is_idle_when_it_was_quiet_since() -> None:
    first = engine(spec(idle_ns=5 * SECOND))
    first.apply(log(trade(0)), T0)
    again = restored(first.spec, first.changed())
    assert again.idle(T0 + 100 * SECOND) == []
    assert len(again.idle(T0 + 105 * SECOND)) == 1


def test_only_what_changed_is_written() -> None:
    an_engine = engine()
    an_engine.apply(log(trade(0), trade(0, symbol="B")), 0)
    assert list(an_engine.changed()) == ["A", "B", POSITION]
    assert an_engine.changed() == {}
    an_engine.apply(log(trade(1, symbol="B"), start=2), 0)
    assert list(an_engine.changed()) == ["B", POSITION]


def test_a_partition_is_known_to_have_come_as_far_as_its_last_checkpoint() -> None:
    an_engine, changelog = engine(), Changelog()
    an_engine.apply(log(trade(0), trade(1)), 0)
    changelog.write(an_engine.changed())
    an_engine.apply([Rec(2, ()), Rec(3, BadTick(Reason.malformed, "no number"))], 0)
    assert restored(an_engine.spec, changelog).position == 1
    changelog.write(an_engine.changed())
    assert restored(an_engine.spec, changelog).position == 3
    an_engine.apply(log(trade(2), trade(3, symbol="B"), start=4), 0)
    changelog.write(an_engine.changed(), up_to=1)  # cut off
    assert restored(an_engine.spec, changelog).position == 3


def test_state_of_a_topic_that_was_made_anew_is_refused() -> None:
    before, after = (BarEngine(spec(), GivenTrades(), "ticks", 0, log_id) for log_id in ("old", "new"))
    before.apply(log(trade(0)), 0)
    with pytest.raises(
        StateError, match="ends at offset 0 of a topic that is gone: id old, now new"
    ) as refused:
        after.restore(before.changed())
    assert "tidegate state reset" in refused.value.hint


def busy(second):
    """A second of one instrument, with 100 trades."""
    ids = range(100 * second, 100 * second + 100)
    return [Rec(i, (trade(i / 100, "61837.63", "0.02", i),), T0 // 10**6 + 10 * i) for i in ids]


def test_a_checkpoint_writes_what_is_new_however_long_the_memory() -> None:
    an_engine = engine(spec("1s", "1m"))
    changelog, written = Changelog(), []
    for second in range(300):
        an_engine.apply(busy(second), 0)
        rows = an_engine.changed()
        written.append(sum(len(row or b"") for row in rows.values()))
        changelog.write(rows)
    assert max(written[200:]) < 1.3 * max(written[20:60])
    assert max(map(len, changelog.values())) < 20_000
    again = restored(an_engine.spec, changelog)
    assert again.apply([Rec(30_000, busy(0)[5].value)], 0).counts.duplicates == 1


def test_revisions_go_on_counting() -> None:
    an_engine = engine()
    an_engine.apply(log(trade(0), trade(9), trade(0)), 0)
    again = restored(an_engine.spec, an_engine.changed())
    (bar,) = again.apply(log(trade(0), start=3), 0).bars
    assert (bar.volume, bar.revision) == ("3", 2)


def test_what_was_published_before_it_closed_can_be_revised_after_a_restart() -> None:
    an_engine = engine()
    an_engine.apply(log(trade(0)), 0)
    assert len(an_engine.close()) == 1
    assert an_engine.apply(log(trade(9), start=1), 0).bars == []
    (bar,) = restored(an_engine.spec, an_engine.changed()).apply(log(trade(0), start=2), 0).bars
    assert (bar.volume, bar.revision) == ("2", 1)


def test_a_row_is_of_use_for_grace_and_retention() -> None:
    an_engine, changelog = engine(spec(grace_ns=10 * SECOND, retain_ns=5 * SECOND)), Changelog()
    with short():
        for at, ticks in [(0, [trade(0), trade(1), trade(12)]), (3, [trade(15.9)]), (4, [trade(15.99)])]:
            an_engine.apply(log(*ticks, start=at), 0)
            changelog.write(an_engine.changed())
    assert "A|0" in changelog
    (bar,) = restored(an_engine.spec, changelog).apply(log(trade(1), start=5), 0).bars
    assert (bar.volume, bar.revision) == ("2", 1)


def test_rows_of_no_further_use_are_deleted() -> None:
    an_engine = engine(spec("1s", dedupe_ns=5 * SECOND, retain_ns=5 * SECOND))
    changelog = Changelog()
    for second in range(60):
        an_engine.apply(busy(second), 0)
        changelog.write(an_engine.changed())
    assert len(changelog) < 20


def test_rows_left_over_from_a_crash_are_deleted() -> None:
    an_engine, changelog = engine(), Changelog()
    an_engine.apply(busy(0), 0)
    changelog.write(an_engine.changed())
    an_engine.apply(busy(1), 0)
    changelog.write(an_engine.changed(), up_to=1)
    assert set(changelog) == {POSITION, "A", "A|0"}
    again = restored(spec(), changelog)
    changelog.write(again.changed())
    assert set(changelog) == {POSITION, "A"}


def test_an_id_that_counts_again_is_written_again() -> None:
    an_engine, changelog = engine(spec(dedupe_ns=5 * SECOND)), Changelog()
    an_engine.apply(log(trade(0, trade_id=1), *(trade(4, trade_id=i) for i in range(2, 131))), 0)
    changelog.write(an_engine.changed())
    an_engine.apply(log(trade(9), trade(9, trade_id=1), start=130), 0)
    changelog.write(an_engine.changed())
    assert "A|0" in changelog
    again = restored(an_engine.spec, changelog)
    assert again.apply(log(trade(9, trade_id=1), start=132), 0).counts.duplicates == 1


def test_of_an_id_that_counts_again_the_last_word_survives() -> None:
    """Where there are so many ids that they are written in parts, too."""
    an_engine, changelog = engine(spec(dedupe_ns=5 * SECOND)), Changelog()
    an_engine.apply(log(*(trade(n / 1000, trade_id=n) for n in range(1000))), 0)
    an_engine.apply(log(*(trade(9, trade_id=n) for n in (5000, *range(600, 700))), start=1000), 0)
    changelog.write(an_engine.changed())
    copy = log(trade(9, trade_id=610), start=1101)
    again = restored(an_engine.spec, changelog)
    assert again.apply(copy, 0).counts == an_engine.apply(copy, 0).counts
    assert again.apply(log(trade(9, trade_id=611), start=1102), 0).counts.duplicates == 1


def test_numbers_and_ids_of_any_size_survive() -> None:
    ticks = log(
        trade(0, "999999999999999999.999999999999999999", "999999999999999999.999999999999999999", 2**64 - 1),
        trade(0, "-999999999999999999", "999999999999999999", -(2**63)),
        trade(0, "1", "1", "é" * 128),
    )
    first = engine()
    first.apply(ticks, 0)
    again = restored(first.spec, first.changed())
    copies = [Rec(10 + i, record.value) for i, record in enumerate(ticks)]
    assert again.apply(copies, 0).counts.duplicates == 3
    assert again.close() == first.close()


class TestRefused:
    @pytest.fixture
    def rows(self):
        an_engine = engine(spec("1s"))
        an_engine.apply([*busy(0), *busy(1)], 0)
        return an_engine.changed()

    @pytest.mark.parametrize(
        "row", [b"", b"\x00", b"{}", b"\x92\x05\xc0", b"\x92\x05\x90", b"\x91\x05", b"\xff" * 9]
    )
    def test_garbage(self, rows, row) -> None:
        with pytest.raises(StateError, match="state row 'A' cannot be read"):
            restored(spec(), {**rows, "A": row})

    def test_a_row_cut_short(self, rows) -> None:
        with pytest.raises(StateError, match="cannot be read"):
            restored(spec(), {**rows, "A|0": rows["A|0"][:-5]})

    @pytest.mark.parametrize("lacks", [2, 3, 4])
    def test_ids_and_watermarks_that_do_not_fit_each_other(self, rows, lacks) -> None:
        version, past = msgspec.msgpack.decode(rows["A|0"])
        past[3:] = ["x"], [7]
        past[lacks] = past[lacks][:-1]
        with pytest.raises(StateError, match=r"state row 'A\|0' cannot be read: .*trade ids"):
            restored(spec(), {**rows, "A|0": msgspec.msgpack.encode([version, past])})

    def test_ids_that_are_no_numbers(self, rows) -> None:
        version, past = msgspec.msgpack.decode(rows["A|0"])
        past[2] = past[2][:-8]
        with pytest.raises(
            StateError, match="bytes of trade ids and watermarks are no pairs of 64-bit numbers"
        ):
            restored(spec(), {**rows, "A|0": msgspec.msgpack.encode([version, past])})

    def test_a_number_that_is_none(self, rows) -> None:
        version, past = msgspec.msgpack.decode(rows["A|0"])
        past[1] = [
            ["1s", T0, T0 + SECOND, "1", "x", *["1"] * 2, T0, T0, *["1"] * 4, 1, None, None, 1, 1, 0, 1, True]
        ]
        with pytest.raises(StateError, match=r"state row 'A\|0' cannot be read: .*'x"):
            restored(spec(), {**rows, "A|0": msgspec.msgpack.encode([version, past])})

    @pytest.mark.parametrize(
        ("window", "reason"),
        [
            (bytes(8) + (5).to_bytes(8, "little") + bytes(144), "bar type 5 of 1"),
            (bytes(8) + b"\xff" * 8 + bytes(144), "bar type -1 of 1"),
            (bytes(152), "."),
            (bytes(168), "."),
            (b"", "."),
            ("1s", "."),
        ],
    )
    def test_an_open_window_that_is_none(self, rows, window, reason) -> None:
        version, head = msgspec.msgpack.decode(rows["A"])
        head[7] = [window]
        with pytest.raises(StateError, match=rf"state row 'A' cannot be read: .*{reason}"):
            restored(spec("1s"), {**rows, "A": msgspec.msgpack.encode([version, head])})

    def test_another_version(self, rows) -> None:
        version, content = msgspec.msgpack.decode(rows["A"])
        with pytest.raises(StateError, match="version 6, this program reads 5") as caught:
            restored(spec(), {**rows, "A": msgspec.msgpack.encode([version + 1, content])})
        assert "release" in caught.value.hint

    def test_a_missing_part(self, rows) -> None:
        del rows["A|0"]
        with pytest.raises(StateError, match=r"lacks its row A\|0"):
            restored(spec(), rows)

    def test_a_key_that_is_none(self, rows) -> None:
        with pytest.raises(StateError, match=r"'A\|x' is not one of Tidegate's"):
            restored(spec(), {**rows, "A|x": b""})

    def test_a_bar_type_that_was_added(self, rows) -> None:
        with pytest.raises(StateError, match="knows bars of 1s, not of 1m") as caught:
            restored(spec("1s", "1m"), rows)
        assert "new group" in caught.value.hint


def test_a_bar_type_may_be_taken_away() -> None:
    first = engine(spec("1s", "1m"))
    first.apply(log(trade(0), trade(9)), 0)
    again = restored(spec("1m"), first.changed())
    again.apply(log(trade(10), start=2), 0)
    assert [(bar.type, bar.volume) for bar in again.close()] == [("1m", "3")]


def test_a_bar_type_may_not_be_taken_away_where_ticks_would_count_twice() -> None:
    first = engine(spec("1s", "1m", "90s", "1h"))
    first.apply(log(trade(5), trade(65), trade(70), trade(100)), 0)
    rows = first.changed()
    with pytest.raises(StateError, match=r"1h bars made of 90s ones, .* of 1m ones") as caught:
        restored(spec("1s", "1m", "1h"), rows)
    assert "name 90s again" in caught.value.hint
    again = restored(spec("1s", "90s", "1h"), rows)
    assert [bar.trade_count for bar in again.close() if bar.type == "1h"] == [4]


def test_what_was_published_early_is_not_published_again_after_a_restart() -> None:
    first = engine(spec("1s", "1m"))
    first.apply(log(trade(0)), T0)
    assert [bar.type for bar in first.idle(T0 + 3600 * SECOND)] == ["1s", "1m"]
    again = restored(first.spec, first.changed())
    assert again.idle(T0 + 3600 * SECOND) == []
    assert again.idle(T0 + 7200 * SECOND) == []


def test_rows_that_contain_more_than_the_position_says_go_on_to_do_so() -> None:
    first, changelog = engine(spec("1s")), {}
    first.apply(log(trade(0)), T0)
    changelog |= first.changed()
    position = changelog[POSITION]
    first.apply(log(trade(0), trade(0), start=1), T0)
    changelog |= first.changed() | {POSITION: position}  # cut off before the position
    again = restored(first.spec, changelog)
    again.idle(T0 + 3600 * SECOND)
    again.idle(T0 + 7200 * SECOND)
    changelog |= again.changed() | {POSITION: position}
    third = restored(first.spec, changelog)
    assert third.apply(log(trade(0), trade(0), start=1), T0).counts.skipped == 2


@given(durations, durations)
def test_more_retention_after_a_restart_does_not_reach_what_was_forgotten(little, much) -> None:
    before = spec(late=Late.DEAD_LETTER, retain_ns=little)
    first = engine(before)
    closed = first.apply(log(trade(0, "5"), trade(9)), 0).bars
    after = restored(spec(retain_ns=much + 60 * SECOND), first.changed())
    output = after.apply(log(trade(0), start=2), 0)
    assert len(closed) == 1
    assert output.bars == []
    assert output.counts == Counts(ticks=1, late=1, dead_lettered=1)
    assert parse(closed[0].open) == parse("5")
