"""What the rate topic, and the log, are told of decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import structlog.testing
from confluent_kafka import KafkaError
from faust.types import TP

from schemas.feedback import Feedback, Level, encode_feedback
from schemas.rate import RateAdjustment, decode_rate
from streams.batch import Ledger
from streams.flow.controller import RateController
from streams.flow.policy import policy_of
from streams.flow.throttle import Throttle
from streams.flow.valve import Valve
from streams.producer import BarrierProducer
from streams.settings import load_settings
from support.writing import Letter

TTL_S = 10.0


class Producer:
    """Keeps what it is given, and who hears of its failure."""

    def __init__(self) -> None:
        self.told: list[RateAdjustment] = []
        self.on_error: list[Callable[[KafkaError], None] | None] = []

    async def send(
        self, topic: str, value: bytes, *, on_error: Callable[[KafkaError], None] | None = None, **kwargs: Any
    ) -> None:
        self.told.append(decode_rate(value))
        self.on_error.append(on_error)


class Scene:
    """A throttle that owns partition 0, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.producer = Producer()
        self.valve = Valve()
        self.throttle = Throttle(
            self.valve,
            RateController(policy_of(load_settings(None)), TTL_S),
            cast("BarrierProducer", self.producer),
            "rate",
            "test",
            clock=lambda: self.now,
        )
        self.throttle.own([0])

    async def say(self, level: str, by: str) -> None:
        await self.throttle.hear([self.feedback(level, by, self.now)])

    @staticmethod
    def feedback(level: str, by: str, ts: float) -> Feedback:
        return Feedback(
            coordinator_id=by,
            queue_size=5,
            capacity=10,
            level=Level(level),
            ts=ts,
            partition=0,
            epoch=1,
        )

    async def come(self, *feedback: Feedback) -> None:
        """Feedback of one batch of the topic."""
        records = [Letter(encode_feedback(one), topic="feedback", partition=0) for one in feedback]
        await self.throttle.take(Ledger().deliver(TP("feedback", 0), records))

    def told(self) -> list[tuple[float, str | None]]:
        """What was told since the last look."""
        told = [(one.scale, one.coordinator_id) for one in self.producer.told]
        self.producer.told.clear()
        return told


async def test_who_holds_a_partition_back_is_told_when_it_is_another_one() -> None:
    at = Scene()
    await at.say("hard", "a")
    at.told()
    for _ in range(12):
        at.now += 1
        await at.say("hard", "b")
        await at.throttle.refresh()
    assert at.told() == [(0.0, "b")], "a has been silent for longer than it counts"
    [told] = at.throttle.held.values()
    assert told.since == 1000.0


async def test_of_two_that_ask_for_the_same_one_is_told_and_no_more() -> None:
    at = Scene()
    for by in ("a", "b") * 5:
        at.now += 1
        await at.say("hard", by)
        await at.throttle.refresh()
    assert len(at.told()) <= 2


async def test_a_decision_that_was_not_delivered_is_told_again_and_logged() -> None:
    at = Scene()
    await at.say("hard", "a")
    assert at.told() == [(0.0, "a")]
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            on_error = at.producer.on_error[-1]
            assert on_error is not None
            on_error(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
            at.now += 1
            await at.throttle.refresh()
            assert at.told() == [(0.0, "a")]
        at.now += 1
        await at.throttle.refresh()
    assert at.told() == []
    [entry] = (entry for entry in logs if entry["event"] == "rate.untold")
    assert entry["partitions"] == [0]
    assert "right to write" in entry["hint"]
    assert not [entry for entry in logs if entry["event"] == "partition.paused"], "it is paused already"
    assert at.throttle.pauses == 1


@pytest.mark.parametrize(("level", "said"), [("hard", ["a"]), ("ok", [])])
async def test_a_store_that_fell_silent_under_pressure_is_told_also_beside_another_one(
    level: str, said: list[str]
) -> None:
    at = Scene()
    await at.say(level, "a")
    with structlog.testing.capture_logs() as logs:
        for _ in range(12):
            at.now += 1
            await at.say("ok", "b")
            await at.throttle.refresh()
    assert [entry["coordinator"] for entry in logs if entry["event"] == "feedback.silent"] == said
    assert at.valve.scale(0) == 1


async def test_a_store_whose_clock_is_so_far_behind_that_its_word_does_not_count_is_told() -> None:
    at = Scene()
    with structlog.testing.capture_logs() as logs:
        await at.come(at.feedback("hard", "a", at.now - TTL_S - 50), at.feedback("hard", "a", at.now - 1))
        assert not logs or logs[0]["event"] == "partition.paused", "what counts came after it"
        for _ in range(3):
            at.now += 1
            await at.come(at.feedback("hard", "a", at.now - TTL_S - 50))
    [entry] = (entry for entry in logs if entry["event"] == "feedback.old")
    assert (entry["coordinator"], entry["partition"], entry["age_s"]) == ("a", 0, 60.0)
