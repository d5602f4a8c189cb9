"""What a bridge knows of stores: whose last word holds, and for how long it is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_data_core.telemetry import FeedbackEvent

from schemas.feedback import Feedback, Level
from streams.ecosystem.pulse_words import Changes, Word, Words

pytestmark = pytest.mark.covers("pulse bridge")

NOW = 1_000_000.0
HOLD_S = 600.0


def word(level: str, order: int, *, who: str = "c", age_s: float = 0.0) -> Word:
    event = FeedbackEvent.model_validate(
        {"coordinator_id": who, "queue_size": 1, "capacity": 2, "level": level, "ts": NOW - age_s}
    )
    return Word(event, {}, (order,), NOW - age_s)


def levels(words: list[Word]) -> list[tuple[str, str]]:
    return [(word.event.coordinator_id, word.event.level.value) for word in words]


def tell(words: Words, now: float) -> list[tuple[str, str]]:
    due = words.due(now)
    for one in due:
        one.told = True
    return levels(due)


def test_hard_and_soft_are_repeated_and_ok_is_told_once() -> None:
    words = Words(HOLD_S)
    for one in (word("hard", 1, who="a"), word("soft", 2, who="b"), word("ok", 3, who="c")):
        assert words.hear(one, NOW)
    assert levels(words.untold(NOW)) == [("a", "hard"), ("b", "soft"), ("c", "ok")]
    assert tell(words, NOW) == [("a", "hard"), ("b", "soft"), ("c", "ok")]
    assert words.untold(NOW) == []
    assert tell(words, NOW + 1) == [("a", "hard"), ("b", "soft")]
    assert words.holding(NOW) == {"a": Level.hard, "b": Level.soft}
    words.hear(word("ok", 4, who="a"), NOW)
    assert levels(words.untold(NOW)) == [("a", "ok")]


def test_what_is_not_later_is_no_news() -> None:
    words = Words(HOLD_S)
    words.hear(word("ok", 5), NOW)
    tell(words, NOW)
    assert not words.hear(word("hard", 4), NOW)
    assert not words.hear(word("ok", 5), NOW)
    assert words.due(NOW) == []


def test_a_word_is_repeated_for_as_long_as_it_holds_and_its_end_is_told_once() -> None:
    words = Words(HOLD_S)
    words.hear(word("hard", 1), NOW)
    assert tell(words, NOW + HOLD_S) == [("c", "hard")]
    assert words.ended(NOW + HOLD_S) == []
    assert words.due(NOW + HOLD_S + 1) == []
    assert levels(words.ended(NOW + HOLD_S + 1)) == [("c", "hard")]
    assert words.ended(NOW + HOLD_S + 2) == []


def test_what_was_said_before_it_could_hold_is_never_told() -> None:
    words = Words(HOLD_S)
    assert not words.hear(word("hard", 1, age_s=HOLD_S + 1), NOW)
    assert words.due(NOW) == []
    assert words.ended(NOW) == []


@given(st.permutations(range(6)), st.lists(st.integers(0, 5)))
def test_the_last_word_wins_whatever_the_order_in_which_it_is_heard(
    order: list[int], again: list[int]
) -> None:
    said = ["ok", "hard", "ok", "soft", "ok", "hard"]
    words = Words(HOLD_S)
    for number in [*order, *again]:
        words.hear(word(said[number], number), NOW)
    assert levels(words.due(NOW)) == [("c", "hard")]


def feedback(level: str, partition: int = 0, *, who: str = "s", ts: float = NOW, epoch: int = 1) -> Feedback:
    return Feedback(
        coordinator_id=who,
        queue_size=3,
        capacity=4,
        level=Level(level),
        ts=ts,
        partition=partition,
        epoch=epoch,
    )


def due(changes: Changes, now: float) -> list[tuple[str, str, str | None]]:
    """Tell all that is due, and say what that was."""
    events = changes.due(now)
    for event, _ in events:
        changes.told(event)
    return [(event.coordinator_id, event.level.value, reason) for event, reason in events]


def test_the_bus_is_told_of_a_store_when_its_level_changes() -> None:
    changes = Changes(ttl_s=10)
    for partition in range(3):
        changes.hear(feedback("ok", partition), NOW)
    assert due(changes, NOW) == [("s", "ok", None)]
    assert due(changes, NOW + 1) == []
    changes.hear(feedback("hard", 1, ts=NOW + 1), NOW + 1)
    assert due(changes, NOW + 1) == [("s", "hard", None)]
    changes.hear(feedback("soft", 1, ts=NOW + 0.5), NOW + 1)
    assert due(changes, NOW + 1) == [], "an older word, that came later, says nothing"
    changes.hear(feedback("ok", 1, ts=NOW + 2), NOW + 2)
    assert due(changes, NOW + 2) == [("s", "ok", None)]


def test_a_store_that_is_silent_is_told_to_be_ok() -> None:
    changes = Changes(ttl_s=10)
    changes.hear(feedback("hard"), NOW)
    assert due(changes, NOW) == [("s", "hard", None)]
    assert due(changes, NOW + 10) == []
    assert due(changes, NOW + 11) == [("s", "ok", "silent")]
    assert due(changes, NOW + 12) == []


def test_what_the_bus_was_told_before_is_taken_back_after_a_moment_if_nobody_says_it_again() -> None:
    changes = Changes(ttl_s=10)
    for who in ("dead", "alive"):
        told = word("hard", 1, who=who).event
        changes.told(told)
    assert due(changes, NOW) == []
    changes.hear(feedback("hard", who="alive", ts=NOW + 9), NOW + 9)
    assert due(changes, NOW + 11) == [("dead", "ok", "silent")]


def test_what_was_not_told_is_due_until_it_is() -> None:
    changes = Changes(ttl_s=10)
    changes.hear(feedback("hard"), NOW)
    assert len(changes.due(NOW)) == len(changes.due(NOW)) == 1
