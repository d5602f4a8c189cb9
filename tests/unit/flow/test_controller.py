from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.feedback import Feedback, Level
from streams.flow.controller import Decision, RateController
from streams.flow.policy import Step
from streams.settings import load_settings

NOW = 1_000_000.0
TTL = 10.0
STEP = Step(load_settings(None))
SCALES = {Level.ok: 1.0, Level.soft: 0.5, Level.hard: 0.0}
OPEN = Decision(0, 1.0, Level.ok, None)


def said(level: str, *, by: str = "a", ts: float = NOW, epoch: int = 1, partition: int = 0) -> Feedback:
    return Feedback(
        coordinator_id=by,
        queue_size=1,
        capacity=10,
        level=Level(level),
        ts=ts,
        partition=partition,
        epoch=epoch,
    )


def after(*feedback: Feedback, now: float = NOW) -> RateController:
    controller = RateController(STEP, TTL)
    for event in feedback:
        controller.observe(event, now)
    return controller


def test_without_feedback_nothing_is_held_back() -> None:
    assert after().decide(0, NOW) == OPEN


def test_each_level_has_its_scale() -> None:
    for level in Level:
        assert after(said(level)).decide(0, NOW) == Decision(0, SCALES[level], level, "a")


def test_a_scale_that_the_sender_asks_for_holds_in_place_of_the_policy_s() -> None:
    def asking(scale: float, by: str, level: str = "ok") -> Feedback:
        return msgspec.structs.replace(said(level, by=by), scale=scale)

    assert after(asking(0.7, "rate")).decide(0, NOW) == Decision(0, 0.7, Level.ok, "rate")
    assert after(asking(1.0, "rate", "hard")).decide(0, NOW).scale == 1.0
    assert after(asking(0.7, "rate"), said("hard")).decide(0, NOW) == Decision(0, 0.0, Level.hard, "a")
    assert after(asking(0.2, "rate"), said("soft")).decide(0, NOW) == Decision(0, 0.2, Level.ok, "rate")


def test_feedback_about_one_partition_does_not_touch_another() -> None:
    controller = after(said("hard", partition=3))
    assert controller.decide(0, NOW) == OPEN
    assert controller.decide(3, NOW).scale == 0


def test_the_latest_word_of_a_coordinator_holds() -> None:
    assert after(said("hard", ts=NOW - 2), said("ok", ts=NOW - 1)).decide(0, NOW).reason is Level.ok
    assert after(said("ok", ts=NOW - 1), said("hard", ts=NOW - 2)).decide(0, NOW).reason is Level.ok


def test_the_worst_of_several_coordinators_wins() -> None:
    decision = after(said("ok", by="a"), said("hard", by="b"), said("soft", by="c")).decide(0, NOW)
    assert decision == Decision(0, 0.0, Level.hard, "b")


def test_a_newer_epoch_overrules_whatever_the_older_one_says() -> None:
    controller = after(said("hard", epoch=1, ts=NOW - 1), said("ok", epoch=2, ts=NOW - 5))
    assert controller.decide(0, NOW).reason is Level.ok
    assert not controller.observe(said("hard", epoch=1, ts=NOW), NOW)
    assert controller.decide(0, NOW).reason is Level.ok


def test_a_silent_coordinator_expires_and_its_pause_with_it() -> None:
    controller = after(said("hard"))
    assert controller.decide(0, NOW + TTL).scale == 0
    assert controller.decide(0, NOW + TTL + 0.1) == OPEN
    assert controller.expired(NOW + TTL) == []
    assert [feedback.level for feedback in controller.expired(NOW + TTL + 0.1)] == [Level.hard]
    assert controller.expired(NOW + TTL + 0.1) == []


def test_a_silent_coordinator_leaves_the_word_to_the_others() -> None:
    controller = after(said("hard", by="a", ts=NOW - 5), said("soft", by="b", ts=NOW))
    assert controller.decide(0, NOW).coordinator_id == "a"
    assert controller.decide(0, NOW + 6) == Decision(0, SCALES[Level.soft], Level.soft, "b")


def test_a_clock_that_is_ahead_of_ours_does_not_prolong_a_pause() -> None:
    for ahead in (3600.0, 1e308):
        controller = after(said("hard", ts=NOW + ahead))
        assert controller.decide(0, NOW + TTL).scale == 0
        assert controller.decide(0, NOW + TTL + 0.1) == OPEN
        assert len(controller.expired(NOW + TTL + 0.1)) == 1


def test_a_clock_that_is_set_back_does_not_prolong_a_pause() -> None:
    controller = after(said("hard"))
    assert controller.decide(0, NOW - 3600).scale == 0
    assert controller.decide(0, NOW - 3600 + TTL + 0.1) == OPEN
    assert len(controller.expired(NOW - 3600 + TTL + 0.1)) == 1


def test_feedback_that_is_out_of_date_when_it_comes_is_ignored() -> None:
    controller = RateController(STEP, TTL)
    assert not controller.observe(said("hard", ts=NOW - TTL - 0.1), NOW)
    assert controller.decide(0, NOW) == OPEN
    assert controller.observe(said("hard", ts=NOW - TTL), NOW)


def test_what_is_known_of_a_partition_is_forgotten_with_it() -> None:
    controller = after(said("hard"), said("hard", partition=1))
    controller.forget(0)
    assert controller.decide(0, NOW) == OPEN
    assert controller.decide(1, NOW).scale == 0


feedback = st.builds(
    said,
    st.sampled_from(list(Level)),
    by=st.sampled_from(["a", "b", "c"]),
    # Few values, so that they collide.
    ts=st.sampled_from([NOW - TTL - 1, NOW - TTL, NOW - 3, NOW - 2, NOW - 1, NOW, NOW + 5]),
    epoch=st.integers(1, 3),
    partition=st.integers(0, 1),
)


@given(st.lists(feedback, max_size=12), st.randoms(use_true_random=False), st.data())
def test_the_decision_is_a_function_of_the_set_of_feedback(
    events: list[Feedback], shuffler: random.Random, data: Any
) -> None:
    repeated = events + data.draw(st.lists(st.sampled_from(events), max_size=6)) if events else []
    shuffler.shuffle(repeated)
    one, other = after(*events), after(*repeated)
    for now in (NOW, NOW + TTL - 2.5, NOW + TTL, NOW + TTL + 6):
        for partition in (0, 1):
            assert one.decide(partition, now) == other.decide(partition, now)


@given(st.lists(feedback, min_size=1, max_size=12))
def test_the_decision_is_the_worst_of_the_latest_of_each_live_coordinator(events: list[Feedback]) -> None:
    timely = [f for f in events if f.partition == 0 and f.ts >= NOW - TTL]
    latest = {}
    for event in sorted(timely, key=lambda f: (f.epoch, f.ts, list(Level).index(f.level))):
        latest[event.coordinator_id] = event.level
    worst = max(latest.values(), key=list(Level).index, default=Level.ok)
    assert after(*events).decide(0, NOW).reason is worst


class _Falling:
    """A tenth less each second."""

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        return scale - elapsed_s / 10


def test_a_policy_is_told_what_the_scale_was_and_for_how_long() -> None:
    controller = RateController(_Falling(), TTL)
    controller.observe(said("ok"), NOW)
    scales = [controller.decide(0, NOW + second).scale for second in (0, 1, 1, 3, 2, 10)]
    assert scales == pytest.approx([1, 0.9, 0.9, 0.7, 0.7, 0]), "a clock that is set back lets no time pass"
    assert controller.decide(0, NOW + TTL + 1).scale == 1


@given(st.lists(feedback, max_size=12), st.floats(0, TTL))
def test_every_pause_ends_when_feedback_goes_quiet(events: list[Feedback], silent_s: float) -> None:
    controller = after(*events)
    for partition in (0, 1):
        controller.decide(partition, NOW + silent_s)
        assert controller.decide(partition, NOW + TTL + 5.1).scale == 1


@given(st.lists(feedback, max_size=12))
def test_expiry_tells_of_each_silent_coordinator_once(events: list[Feedback]) -> None:
    controller = after(*events)
    later = NOW + TTL + 5.1
    gone = [(f.partition, f.coordinator_id) for f in controller.expired(later)]
    assert (
        len(gone)
        == len(set(gone))
        == len({(f.partition, f.coordinator_id) for f in events if f.ts >= NOW - TTL})
    )
    assert controller.expired(later) == []
