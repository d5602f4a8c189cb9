"""What may be committed of events that get done in any order, and applying an event once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ecosystem.in_hand import InHand
from streams.ecosystem.once import Once

pytestmark = pytest.mark.covers("event bus")


@dataclass
class Envelope:
    id: str


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=30).flatmap(
        lambda gaps: st.tuples(st.just(gaps), st.permutations(range(len(gaps))))
    )
)
def test_only_what_has_nothing_undone_before_it_may_be_committed(
    given_and_order: tuple[list[int], list[int]],
) -> None:
    gaps, order = given_and_order
    offsets = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    hand: InHand[int, str] = InHand()
    for offset in offsets:
        hand.give(0, offset, "", 0.0)
    committed = 0
    done: set[int] = set()
    for index in order:
        before = hand.done(0, offsets[index])
        done.add(offsets[index])
        if before is not None:
            assert before > committed
            committed = before
        undone = [offset for offset in offsets if offset not in done]
        assert all(offset in done for offset in offsets if offset < committed)
        # Nothing is held up either: all up to the first that is not done may be committed.
        assert committed == (0 if undone[:1] == offsets[:1] else undone[0] if undone else offsets[-1] + 1)
    assert len(hand) == 0


def test_what_is_not_in_hand_changes_nothing() -> None:
    hand: InHand[int, str] = InHand()
    assert hand.done(0, 5) is None
    hand.give(0, 5, "", 0.0)
    assert hand.done(1, 5) is None
    assert hand.done(0, 5) == 6
    assert hand.done(0, 5) is None
    hand.give(0, 6, "", 0.0)
    hand.clear()
    assert hand.done(0, 6) is None


def test_what_was_given_too_long_ago_is_overdue_until_it_is_given_again_or_done() -> None:
    hand: InHand[int, str] = InHand()
    for offset, at in ((1, 10.0), (2, 11.0), (3, 15.0)):
        hand.give(0, offset, f"event {offset}", at)
    overdue = hand.overdue(12.0)
    assert next(overdue) == (0, 1, "event 1")
    hand.give(0, 1, "event 1", 16.0)
    assert hand.done(0, 2) is None
    assert list(overdue) == []
    assert list(hand.overdue(15.5)) == [(0, 3, "event 3")]
    assert hand.done(0, 1) == 3


async def test_an_event_that_comes_again_is_applied_once() -> None:
    once, applied = Once(), []

    async def effect(envelope: Envelope) -> None:
        applied.append(envelope.id)

    assert await once.apply(Envelope("s[0]@1#g"), effect)
    assert not await once.apply(Envelope("s[0]@1#g"), effect)
    assert await once.apply(Envelope("s[1]@1#g"), effect)
    assert applied == ["s[0]@1#g", "s[1]@1#g"]


async def test_an_event_whose_effect_failed_is_not_applied() -> None:
    once, tries = Once(), []

    async def effect(envelope: Envelope) -> None:
        tries.append(envelope.id)
        if len(tries) == 1:
            raise ValueError("the effect failed")

    with pytest.raises(ValueError, match="the effect failed"):
        await once.apply(Envelope("s[0]@1#g"), effect)
    assert await once.apply(Envelope("s[0]@1#g"), effect)


async def test_the_ids_that_are_remembered_are_the_last_ones() -> None:
    once = Once(limit=2)

    async def effect(envelope: Envelope) -> None: ...

    for id_ in ("a", "b", "a", "c"):
        await once.apply(Envelope(id_), effect)
    assert not await once.apply(Envelope("a"), effect)
    assert await once.apply(Envelope("b"), effect)
