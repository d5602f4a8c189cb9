"""Stopping anywhere and going on from the state rows gives the bars of not stopping."""

import re
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import msgspec
import pytest
from barlog import SECOND, T0, GivenTrades, Reader, Rec, batches, engine, finished, log, spec, trade
from hypothesis import given
from hypothesis import strategies as st
from staterows import Changelog, contents, counting, decoded, encoded, numbers_of
from strategies import cuts, durations, logs, specs

from schemas.dead_letter import Reason
from schemas.errors import BadTick, StateError
from schemas.fixed import parse
from streams.bars import memory, packs, state
from streams.bars.engine import BarEngine
from streams.bars.state import POSITION
from streams.bars.types import Counts, Late


@contextmanager
def short():
    """Rows are split and memories forget in logs as short as those of hypothesis."""
    with (
        mock.patch.object(memory, "_ROOM", 1),
        mock.patch.object(state, "_FEW", 2),
        mock.patch.object(state, "_COPIES", 2),
        mock.patch.object(state, "_PACKS", 3),
        mock.patch.object(state, "_REWRITTEN", 1),
        mock.patch.object(state, "_CARRIED", 2),
        mock.patch.object(packs, "_OPEN_BYTES", 300),
        mock.patch.object(state, "_ROOM", 20),
        mock.patch.object(packs, "_PAST_ITEMS", 2),
        mock.patch.object(packs, "_PAST_TEXTS", 2),
        mock.patch.object(packs, "_PAST_IDS", 3),
    ):
        yield


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
        assert changelog.keys() == (all_counting(changelog) | {""} if changelog else set())


def all_counting(changelog):
    return {name for names in counting(changelog).values() for name in names}


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
                if event != "crash" and committed:  # before that there is nothing to go on from
                    changelog.write(an_engine.changed(), up_to=event)
                an_engine, at = restored(a_spec, changelog), committed
        reader.take(an_engine.apply(records[at:], 0))
        reader.read(an_engine.close())
        assert reader.held == finished(a_spec, records).held


@given(specs, logs(), st.integers(0, 40), st.integers(0, 40))
def test_what_is_in_the_state_is_passed_over(a_spec, records, applied, read_again) -> None:
    first = engine(a_spec)
    first.apply(records[:applied], 0)
    again = restored(a_spec, first.changed())
    assert again.position == first.position
    start = min(read_again, applied)
    output = again.apply(records[start:applied], 0)
    assert (output.bars, output.dead, output.counts) == ([], [], Counts())
    assert again.changed() == {}


@given(specs, logs(), cuts)
def test_a_state_is_the_same_however_many_checkpoints_made_it(a_spec, records, sizes) -> None:
    with short():
        often, once, changelog, other = engine(a_spec), engine(a_spec), Changelog(), Changelog()
        for batch in batches(records, sizes):
            often.apply(batch, 0)
            once.apply(batch, 0)
            changelog.write(often.changed())
        other.write(once.changed())
        assert contents(changelog, a_spec) == contents(other, a_spec)


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
    first, changelog = engine(), Changelog()
    first.apply(log(trade(0)), T0)
    changelog.write(first.changed())
    assert len(first.idle(T0 + 9 * SECOND)) == 1
    changelog.write(first.changed())
    again = restored(spec(), changelog)
    assert again.idle(T0 + 10 * SECOND) == again.idle(T0 + 99 * SECOND) == []


def test_after_a_restart_an_instrument_is_idle_when_it_was_quiet_since() -> None:
    first = engine(spec(idle_ns=5 * SECOND))
    first.apply(log(trade(0)), T0)
    again = restored(first.spec, first.changed())
    assert again.idle(T0 + 100 * SECOND) == []
    assert len(again.idle(T0 + 105 * SECOND)) == 1


def written(rows):
    """The names of the instruments in these rows of what is open, by row."""
    names = decoded(rows["names|0"])[0] if "names|0" in rows else ["A", "B"]
    return {
        name: [names[slot] for slot, *_ in numbers_of(decoded(row)[0], 5)]
        for name, row in rows.items()
        if name.startswith("open|")
    }


def test_only_what_changed_is_written() -> None:
    an_engine = engine()
    an_engine.apply(log(trade(0), trade(0, symbol="B")), 0)
    rows = an_engine.changed()
    assert list(rows) == ["names|0", "open|0", POSITION]
    assert written(rows) == {"open|0": ["A", "B"]}
    assert an_engine.changed() == {}
    an_engine.apply(log(trade(1, symbol="B"), start=2), 0)
    rows = an_engine.changed()
    assert list(rows) == ["open|1", POSITION]
    assert written(rows) == {"open|1": ["B"]}
    an_engine.apply(log(trade(1), trade(1, symbol="B"), start=3), 0)
    assert list(an_engine.changed()) == ["open|2", POSITION, "open|0", "open|1"]


def test_instruments_that_go_quiet_are_written_again_now_and_then() -> None:
    """So what is written once and never again does not keep all later rows from being deleted."""
    an_engine, changelog = engine(), Changelog()
    an_engine.apply(log(*(trade(0, symbol=symbol) for symbol in "ABCDEFGH")), 0)
    changelog.write(an_engine.changed())
    for second in range(1, 500):
        an_engine.apply(log(trade(second / 1000, symbol="A"), start=second + 10), 0)
        changelog.write(an_engine.changed())
    assert len(changelog) < 120
    again = restored(an_engine.spec, changelog)
    assert sorted(map(repr, again.close())) == sorted(map(repr, an_engine.close()))


def test_what_takes_many_rows_is_not_written_again_for_that() -> None:
    """However often it is written anew, there are as many."""
    an_engine, changelog, offset, written = engine(spec("1s", grace_ns=20 * SECOND)), Changelog(), 0, []
    with (
        mock.patch.object(state, "_PACKS", 8),
        mock.patch.object(state, "_REWRITTEN", 64),
        mock.patch.object(packs, "_OPEN_BYTES", 1 << 14),
    ):
        for second in range(20):
            ticks = (trade(second, symbol=f"S{n}") for n in range(100))
            an_engine.apply([Rec(offset + n, (tick,), 2**50) for n, tick in enumerate(ticks)], 0)
            offset += 100
        changelog.write(an_engine.changed())
        assert len(counting(changelog)["open"]) > 8
        for _ in range(100):
            an_engine.apply([Rec(offset, (trade(19, symbol="S0"),), 2**50)], 0)
            offset += 1
            rows = an_engine.changed()
            written.append(sum(len(row) for row in rows.values() if row is not None))
            changelog.write(rows)
    assert sum(written) / len(written) < 20_000
    assert len(changelog) < 200


def test_rows_stay_well_below_what_a_broker_takes() -> None:
    an_engine, changelog = engine(spec("1s", grace_ns=0)), Changelog()
    ticks = (trade(n // 2000, symbol=f"S{n % 2000}", trade_id=n) for n in range(20_000))
    an_engine.apply([Rec(n, (tick,), T0 // 10**6 + 60_000) for n, tick in enumerate(ticks)], 0)
    texts = (trade(60, symbol=f"S{n % 2000}", trade_id="x" * 120 + str(n)) for n in range(4_000))
    an_engine.apply([Rec(20_000 + n, (tick,), T0 // 10**6 + 60_000) for n, tick in enumerate(texts)], 0)
    changelog.write(an_engine.changed())
    assert max(map(len, changelog.values())) < 600_000
    assert len(counting(changelog)["past"]) > 10
    again = restored(an_engine.spec, changelog)
    assert contents(again_saved(again), an_engine.spec)[1].keys() == set()
    assert sorted(map(repr, again.close())) == sorted(map(repr, an_engine.close()))


def again_saved(an_engine):
    return an_engine.changed()


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
    for at, ticks in [(0, [trade(0), trade(1), trade(12)]), (3, [trade(15.9)]), (4, [trade(15.99)])]:
        an_engine.apply(log(*ticks, start=at), 0)
        changelog.write(an_engine.changed())
    (bar,) = restored(an_engine.spec, changelog).apply(log(trade(1), start=5), 0).bars
    assert (bar.volume, bar.revision) == ("2", 1)


def test_rows_of_no_further_use_are_deleted() -> None:
    an_engine = engine(spec("1s", dedupe_ns=5 * SECOND, retain_ns=5 * SECOND))
    changelog = Changelog()
    for second in range(200):
        an_engine.apply(busy(second), 0)
        changelog.write(an_engine.changed())
    assert len(changelog) < 30


def test_the_past_of_who_has_gone_quiet_is_carried_on() -> None:
    """Also of many, of which no checkpoint carries more than some."""
    a_spec = spec("1s", grace_ns=0, dedupe_ns=5 * SECOND, retain_ns=5 * SECOND)
    an_engine, changelog = engine(a_spec), Changelog()
    with short():
        for n, symbol in enumerate("BCDEFGH"):
            an_engine.apply(log(trade(0, "5", "1", 7, symbol=symbol), start=2 * n), 0)
            an_engine.apply(log(trade(2, "5", "1", "x", symbol=symbol), start=2 * n + 1), 0)
        for second in range(100):
            an_engine.apply(
                [Rec(100 + 100 * second + r.offset, r.value, r.timestamp) for r in busy(second)], 0
            )
            changelog.write(an_engine.changed())
        assert len(changelog) < 400
    assert contents(changelog, a_spec)[1]["H"][2:] == contents(first_of(a_spec, "H"), a_spec)[1]["H"][2:]
    again = restored(a_spec, changelog)
    late = [trade(0, "5", "1", 8, symbol="H"), *(trade(2, "5", "1", i, symbol="H") for i in (7, "x"))]
    output = again.apply(log(*late, start=20_000), 0)
    assert (output.counts.duplicates, [bar.revision for bar in output.bars]) == (2, [1])


def first_of(a_spec, symbol):
    an_engine, n = engine(a_spec), "BCDEFGH".index(symbol)
    an_engine.apply(log(trade(0, "5", "1", 7, symbol=symbol), start=2 * n), 0)
    an_engine.apply(log(trade(2, "5", "1", "x", symbol=symbol), start=2 * n + 1), 0)
    return an_engine.changed()


def test_rows_left_over_from_a_crash_are_deleted() -> None:
    an_engine, changelog = engine(), Changelog()
    an_engine.apply(busy(0), 0)
    changelog.write(an_engine.changed())
    before = set(changelog)
    an_engine.apply([*busy(1), *log(trade(2, symbol="B"), start=200)], 0)
    rows = an_engine.changed()
    changelog.write(rows, up_to=list(rows).index(POSITION))
    again = restored(spec(), changelog)
    assert again.position == 99
    assert list(again.instruments) == ["A"]
    more = again.changed()
    assert list(more) == [POSITION, *sorted(set(changelog) - before - {"names|0"})]
    changelog.write(more)
    assert set(changelog) == before
    assert again.changed() == {}


def test_an_id_that_counts_again_is_written_again() -> None:
    an_engine, changelog = engine(spec(dedupe_ns=5 * SECOND)), Changelog()
    an_engine.apply(log(trade(0, trade_id=1), *(trade(4, trade_id=i) for i in range(2, 131))), 0)
    changelog.write(an_engine.changed())
    an_engine.apply(log(trade(9), trade(9, trade_id=1), start=130), 0)
    changelog.write(an_engine.changed())
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


@pytest.mark.parametrize("ids", [(6 * 10**18, -6 * 10**18, 7), (2**63 - 1, -930)])
def test_ids_survive_of_which_the_difference_needs_more_than_64_bits(ids) -> None:
    first = engine()
    first.apply(log(*(trade(n / 10, trade_id=one) for n, one in enumerate(ids))), 0)
    again = restored(first.spec, first.changed())
    copies = log(*(trade(n / 10, trade_id=one) for n, one in enumerate(ids)), start=10)
    assert again.apply(copies, 0).counts.duplicates == len(ids)


def test_an_id_that_counts_after_none_were_asked_for_survives() -> None:
    """Its mark is the watermark that the state has from the time without."""
    changelog, off, on = Changelog(), engine(spec(dedupe_ns=None)), spec(dedupe_ns=360 * SECOND)
    off.apply(log(trade(5)), 0)
    changelog.write(off.changed())
    an_engine = restored(on, changelog)
    assert an_engine.apply(log(trade(5, trade_id=1), start=1), 0).counts.accepted == 1
    changelog.write(an_engine.changed())
    again = restored(on, changelog)
    assert again.apply(log(trade(5, trade_id=1), start=2), 0).counts.duplicates == 1


class TestRefused:
    """`open|0`, `past|0` and `names|0` are of one instrument with a closed window, an open one and 200 ids."""

    @pytest.fixture
    def rows(self):
        an_engine = engine(spec("1s"))
        an_engine.apply([*busy(0), *busy(1), *busy(3)], 0)
        return an_engine.changed()

    @pytest.mark.parametrize("name", ["names|0", "open|0", "past|0", POSITION])
    @pytest.mark.parametrize(
        "row", [b"", b"\x00", b"{}", b"\x92\x06\xc0", b"\x92\x06\x90", b"\x91\x06", b"\xff" * 9]
    )
    def test_garbage(self, rows, name, row) -> None:
        with pytest.raises(StateError, match=re.escape(f"state row {name!r} cannot be read")):
            restored(spec(), {**rows, name: row})

    @pytest.mark.parametrize("name", ["names|0", "open|0", "past|0", POSITION])
    def test_a_row_cut_short(self, rows, name) -> None:
        with pytest.raises(StateError, match="cannot be read"):
            restored(spec(), {**rows, name: rows[name][:-5]})

    @pytest.mark.parametrize("name", ["names|0", "open|0", "past|0", POSITION])
    def test_another_version(self, rows, name) -> None:
        another = msgspec.msgpack.encode([7, decoded(rows[name])])
        with pytest.raises(StateError, match="version 7, this program reads 6") as caught:
            restored(spec(), {**rows, name: another})
        assert "release" in caught.value.hint

    @pytest.mark.parametrize("name", ["names|0", "open|0", "past|0"])
    def test_a_missing_row(self, rows, name) -> None:
        del rows[name]
        with pytest.raises(StateError, match=re.escape(f"lacks its row {name!r}")):
            restored(spec(), rows)

    def test_rows_without_a_position(self, rows) -> None:
        del rows[POSITION]
        with pytest.raises(StateError, match="has 3 rows, and not the one that says how far") as caught:
            restored(spec(), rows)
        assert "tidegate state reset" in caught.value.hint

    @pytest.mark.parametrize("name", ["A", "A|0", "open", "open|x", "open|-1", "past|"])
    def test_a_row_that_is_none(self, rows, name) -> None:
        with pytest.raises(StateError, match=re.escape(f"{name!r} is not one of Tidegate's")):
            restored(spec(), {**rows, name: b""})

    @pytest.mark.parametrize(
        ("name", "path", "value", "reason"),
        [
            ("names|0", [1], [], "1 symbols, and 0 venues"),
            ("open|0", [0], b"1234567", "7 bytes of clocks are no rows of 5 64-bit numbers"),
            ("open|0", [0], bytes(24), "24 bytes of clocks"),
            ("open|0", [0], b"\x01" + bytes(39), "instrument 1 of 1"),
            ("open|0", [0], b"\xff" * 8 + bytes(32), "instrument -1 of 1"),
            ("open|0", [1, 1], bytes(160), "160 bytes of windows are no rows of 21"),
            ("open|0", [1, 1], bytes(16) + b"\x05" + bytes(151), "bar type 5 of 1"),
            ("open|0", [1, 1], bytes(16) + b"\xff" * 8 + bytes(144), "bar type -1 of 1"),
            ("open|0", [1, 2], ["x"], "1 ids that are text, and 0 windows that have one"),
            ("open|0", [1, 4], [0], "1 instruments of 2 windows"),
            ("past|0", [1, 1], b"\x07" + bytes(167), "instrument 7 of 1"),
            ("past|0", [2], bytes(23), "23 bytes of trade ids are no rows of 3"),
            ("past|0", [2], b"\x02" + bytes(23), "instrument 2 of 1"),
            ("past|0", [3], [0], "0 trade ids, 1 instruments and 0 watermarks"),
            ("past|0", [4], ["x"], "1 trade ids, 0 instruments and 0 watermarks"),
            ("past|0", [5], [7], "0 trade ids, 0 instruments and 1 watermarks"),
            (POSITION, [2], 2, "2 instruments, and the names of 1"),
            (POSITION, [2], -5, "rows or instruments from 0 to -5"),
            (POSITION, [2], 2**45, "the state lacks rows: it has 4 of"),
            (POSITION, [3], [0, 2**40], "the state lacks rows: it has 4 of"),
            (POSITION, [4], [3, 1], "rows or instruments from 3 to 1"),
            ("past|0", [3], [2**63], "1 instruments and 0 watermarks"),
        ],
    )
    def test_numbers_that_do_not_fit_each_other(self, rows, name, path, value, reason) -> None:
        content = at = decoded(rows[name])
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        with pytest.raises(StateError, match=re.escape(reason)) as caught:
            restored(spec(), {**rows, name: encoded(content)})
        assert repr(name) in str(caught.value) or name == POSITION

    @pytest.mark.parametrize("number", ["x", "", "1.5.2"])
    def test_a_window_of_text_that_is_no_number(self, rows, number) -> None:
        content = decoded(rows["past|0"])
        window = [
            "1s",
            T0,
            T0 + SECOND,
            "1",
            number,
            *["1"] * 2,
            T0,
            T0,
            *["1"] * 4,
            1,
            None,
            None,
            1,
            1,
            0,
            1,
            True,
        ]
        content[1][4:] = [0], [window]
        with pytest.raises(StateError, match=r"state row 'past\|0' cannot be read"):
            restored(spec(), {**rows, "past|0": encoded(content)})

    @pytest.mark.parametrize("window", [b"", "1s", [], None])
    def test_a_window_that_is_none(self, rows, window) -> None:
        content = decoded(rows["open|0"])
        content[1][4:] = [0], [window]
        with pytest.raises(StateError, match=r"state row 'open\|0' cannot be read"):
            restored(spec(), {**rows, "open|0": encoded(content)})

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


def test_less_retention_for_a_while_forgets_for_good() -> None:
    """Rows of a quiet instrument are deleted then, and what was in them is not made anew in part."""
    much = spec(grace_ns=0, retain_ns=1000 * SECOND, dedupe_ns=1000 * SECOND)
    little = spec(grace_ns=0, retain_ns=0, dedupe_ns=0)
    changelog, an_engine = Changelog(), engine(much)
    an_engine.apply(log(trade(0, "5", "7", 1), trade(0.5, "6", "7", 2), trade(9, "5", "1", 3)), 0)
    changelog.write(an_engine.changed())
    an_engine = restored(little, changelog)
    for k in range(5):
        an_engine.apply(log(trade(100 + k * 10, symbol="Z", trade_id=k), start=10 + k), 0)
        changelog.write(an_engine.changed())
    late = log(trade(0.2, "5", "1", 9), trade(0, "5", "7", 1), start=50)
    output = restored(much, changelog).apply(late, 0)
    assert (output.bars, output.counts.dead_lettered) == ([], 2)


def test_a_past_of_instruments_far_behind_others_does_not_grow() -> None:
    """Nothing becomes old by the clock of who is ahead for good."""
    an_engine, changelog, sizes = (
        engine(spec("1s", dedupe_ns=9 * SECOND, retain_ns=9 * SECOND)),
        Changelog(),
        [],
    )
    an_engine.apply([Rec(0, (trade(10**8, symbol="A"),), 2**60)], 0)
    with mock.patch.object(state, "_ROOM", 500):
        an_engine._state._room = 500
        for second in range(200):
            an_engine.apply([Rec(1 + r.offset, r.value, r.timestamp) for r in busy(second)], 0)
            changelog.write(an_engine.changed())
            sizes.append(len(changelog))
    assert max(sizes[100:]) <= max(sizes[:100]) < 100


def test_more_ids_of_use_than_there_is_room_for_are_not_written_again_at_each_checkpoint() -> None:
    an_engine, written = engine(spec("1s", dedupe_ns=86_400 * SECOND)), 0
    with mock.patch.object(state, "_ROOM", 500):
        an_engine._state._room = 500
        for n in range(0, 10_000, 100):
            an_engine.apply(log(*(trade(n / 100, trade_id=n + k) for k in range(100)), start=n), 0)
            rows = an_engine.changed()
            written += sum(len(row) for name, row in rows.items() if name.startswith("past") and row)
    new = 10_000 * 3 * 8
    assert new < written < 2 * new


def test_to_carry_on_comes_to_an_end_however_fast_time_passes() -> None:
    a_spec = spec("1s", grace_ns=0, retain_ns=SECOND, dedupe_ns=SECOND)
    an_engine, changelog = engine(a_spec), Changelog()
    with mock.patch.object(state, "_CARRIED", 100):
        quiet = log(*(trade(0, symbol=f"Q{n}", trade_id=n) for n in range(200)))
        an_engine.apply(quiet, 0)
        changelog.write(an_engine.changed())
        for k in range(1, 101):
            an_engine.apply([Rec(1000 + k, (trade(k * 3, symbol="A", trade_id=k),), 2**50)], 0)
            changelog.write(an_engine.changed())
    assert len(counting(changelog)["past"]) < 20
    again = restored(a_spec, changelog)
    assert again.apply([Rec(5000 + r.offset, r.value) for r in quiet], 0).counts.duplicates == 200
