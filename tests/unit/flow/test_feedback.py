"""What is said about the queue, to which partitions, and last."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from schemas.feedback import Feedback, Level, decode_feedback
from streams.flow.controller import RateController
from streams.flow.feedback import FeedbackPublisher
from streams.flow.policy import Step
from streams.settings import load_settings


class Queue:
    level = Level.hard
    size = 90
    capacity = 100
    drain_rate = 12.5
    drops = SimpleNamespace(total=7)


class Topic:
    def __init__(self) -> None:
        self.said: list[Feedback] = []

    async def send(self, topic: str, value: bytes, *, key: bytes, partition: int) -> None:
        feedback = decode_feedback(value)
        assert feedback.partition == partition
        self.said.append(feedback)

    def take(self) -> list[tuple[int, str, int]]:
        said, self.said = self.said, []
        return [(f.partition, f.level.value, f.queue_size) for f in said]


def publisher(topic: Topic, name: str = "a") -> FeedbackPublisher:
    return FeedbackPublisher(
        cast("Any", Queue()), cast("Any", topic), "md.feedback.v1", name, heartbeat_s=1.0
    )


async def test_a_partition_that_is_lost_is_let_go_and_those_that_stay_are_not() -> None:
    topic = Topic()
    at = publisher(topic)
    await at.own([0, 1, 2])
    assert topic.take() == []
    await at.own([1, 2, 3])
    assert topic.take() == [(0, "ok", 0)]


async def test_a_worker_that_leaves_lets_go_of_all_and_takes_nothing_more() -> None:
    topic = Topic()
    at = publisher(topic)
    await at.own([2, 0])
    await at.leave()
    assert topic.take() == [(0, "ok", 0), (2, "ok", 0)]
    await at.own([0, 1])
    await at.own([])
    assert topic.take() == []


async def test_what_was_dropped_is_said_also_with_the_last_word() -> None:
    topic = Topic()
    at = publisher(topic)
    await at.own([0])
    await at._publish(0)
    await at.leave()
    assert [said.dropped for said in topic.said] == [7, 7]


async def test_the_last_word_is_later_than_those_before_it_whatever_the_clock_says(monkeypatch: Any) -> None:
    topic = Topic()
    at = publisher(topic)
    await at.own([0])
    clock = iter([1000.0, 400.0, 400.0])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    await at._publish(0)
    await at.leave()
    hard, ok = topic.said
    assert (hard.level, ok.level) == (Level.hard, Level.ok)
    assert ok.ts > hard.ts


async def test_a_good_bye_takes_back_what_its_sender_asked_for_and_nothing_else() -> None:
    controller, now = RateController(Step(load_settings(None)), 600.0), time.time()
    old, new = Topic(), Topic()
    leaving, staying = publisher(old, "old"), publisher(new, "new")
    for at in (leaving, staying):
        await at.own([0])
        await at._publish(0)
    await leaving._publish(0)
    await leaving.leave()
    for feedback in (*new.said, *old.said):
        controller.observe(feedback, now + 1)
    assert (controller.decide(0, now + 1).reason, controller.decide(0, now + 1).coordinator_id) == (
        "hard",
        "new",
    )
    await staying.leave()
    controller.observe(new.said[-1], now + 1)
    assert controller.decide(0, now + 1).scale == 1
