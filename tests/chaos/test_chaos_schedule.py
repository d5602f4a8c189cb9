"""The schedule of faults, and what a verdict says, without a broker."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import pairwise

from chaos.expected import Expected, Logged, Version, add_logged
from chaos.faults import ALL, TELLING
from chaos.schedule import schedule
from chaos.verdict import Moment, Verdict, compare
from support.oracle import Content, Tick

KINDS = [fault.kind for fault in ALL]
SECOND = 10**9


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another_one() -> None:
    assert schedule(7, 50, KINDS) == schedule(7, 50, KINDS)
    assert schedule(7, 50, KINDS) != schedule(8, 50, KINDS)


def test_every_kind_comes_as_often_as_any_other() -> None:
    counts = Counter(step.kind.name for step in schedule(3, 4 * len(KINDS), KINDS))
    assert counts == dict.fromkeys((kind.name for kind in KINDS), 4)


def test_a_short_schedule_has_each_telling_fault_once() -> None:
    steps = schedule(1, len(TELLING), [fault.kind for fault in TELLING])
    assert {step.kind for step in steps} == {fault.kind for fault in TELLING}


def test_a_fault_that_does_not_wait_hits_something_else_than_those_that_still_last() -> None:
    steps = schedule(5, 500, KINDS, hurry=0.5)
    lasting: set[str] = set()
    for last, step in pairwise(steps):
        lasting = {*(lasting if last.hurry else ()), last.kind.resource}
        if step.hurry:
            assert step.kind.resource not in lasting
    assert sum(step.hurry for step in steps) > 100


def test_a_frozen_worker_stays_so_for_longer_than_its_session() -> None:
    assert all(step.lasts_s > 6 for step in schedule(2, 200, KINDS) if step.kind.name == "SIGSTOP")


def _logged(offset: int, trade_id: int, at_s: float, price: str) -> Logged:
    return Logged(Tick("A", int(at_s * SECOND), price, "1"), trade_id, offset, 1000 * offset)


def test_the_oracle_counts_a_trade_once_and_a_late_one_as_a_revision() -> None:
    expected = Expected()
    ticks = [
        _logged(10, 1, 60.1, "5"),
        _logged(11, 1, 60.1, "5"),
        _logged(12, 2, 60.1, "7"),
        _logged(13, 3, 63.0, "9"),
        _logged(14, 4, 60.5, "6"),
    ]
    add_logged(expected, ticks, grace_ns=SECOND)
    whole = Content(*map(Decimal, ("5", "7", "5", "6", "3")), 3)
    assert expected.bars["A", "1s", 60 * SECOND] == Version(whole, last_offset=14, revision=1, final=True)
    assert not expected.bars["A", "1s", 63 * SECOND].final
    minute = expected.bars["A", "1m", 60 * SECOND]
    assert (minute.content.trade_count, minute.revision, minute.final) == (4, 0, False)
    assert (expected.duplicates, expected.late) == (1, 1)


def test_a_difference_names_the_bar_and_the_fault_that_is_nearest() -> None:
    bar = Version(Content(*map(Decimal, "12345"), 6), last_offset=7, revision=0, final=True)
    keys = [("A", "1s", n) for n in range(3)]
    found = {keys[0]: bar, keys[1]: bar._replace(revision=1)}
    verdict = Verdict(
        compare("store", found, {keys[1]: bar, keys[2]: bar}, {keys[1]: 99_000, keys[2]: 131_000})
    )
    assert [d.what for d in verdict.differences] == ["too many", "unequal", "missing"]
    timeline = [Moment("#1 kill -9", "", 100, ended=100), Moment("#2 a cut", "", 130, ended=135)]
    told = "\n".join(verdict.lines(timeline))
    assert "store: 1 bars unequal" in told
    assert "A|1s|1  sent within 5 s before #1 kill -9" in told
    assert "revision 1, final" in told
    assert "A|1s|2  sent during #2 a cut" in told


def test_a_fault_excuses_the_worker_that_it_hit_and_for_a_while() -> None:
    cut = Moment("#1 a cut", "", 100, worker="one", ended=110)
    assert cut.may_explain("one", 120)
    assert not cut.may_explain("one", 150)
    assert not cut.may_explain("two", 120)
    assert Moment("#2 broker killed", "", 100, ended=110).may_explain("two", 120)
