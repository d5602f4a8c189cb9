"""From records on the feedback topic to the valve, and what is said about it, on Apache Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from confluent_kafka import Consumer, Producer, TopicPartition
from faust.types import TP

from schemas.feedback import Feedback, Level, encode_feedback
from schemas.rate import RateAdjustment, decode_rate
from streams.app import assigned, batch_agent, build_app, every
from streams.broker import confluent_config
from streams.flow.controller import RateController
from streams.flow.policy import policy_of
from streams.flow.throttle import Throttle
from streams.flow.valve import Valve
from streams.producer import BarrierProducer
from streams.runtime import running
from streams.settings import load_settings
from support import events
from support.kafka import TestTopics

TTL_S = 1.5
LONG_S = 60.0


#: Nothing here takes longer than a time to live and a look.
eventually = partial(events.eventually, timeout_s=10)


@dataclass
class Scene:
    """A throttle that reads its topic, the store that feeds it, and who reads what it decides."""

    throttle: Throttle
    valve: Valve
    store: Producer
    feedback: str
    rates: Consumer

    def say(self, level: str, partition: int = 0, *, about: int | None = None, by: str = "store-1") -> None:
        feedback = Feedback(
            coordinator_id=by,
            queue_size=5,
            capacity=10,
            level=Level(level),
            ts=time.time(),
            partition=partition if about is None else about,
            epoch=1,
        )
        self.send(encode_feedback(feedback), partition)

    def send(self, value: bytes | None, partition: int = 0) -> None:
        self.store.produce(self.feedback, value, partition=partition)
        assert self.store.flush(10) == 0

    async def told(self, count: int) -> list[RateAdjustment]:
        """What was published since the last look: so many, and no more."""
        told: list[RateAdjustment] = []
        await eventually(
            lambda: told.extend(self._look(0.02)) or len(told) >= count, f"{count} are published"
        )
        return told + self._look(0.3)

    def _look(self, wait_s: float) -> list[RateAdjustment]:
        messages = self.rates.consume(100, wait_s)
        for message in messages:
            assert decode_rate(message.value()).partition == message.partition()
        return [decode_rate(message.value()) for message in messages]


@contextlib.asynccontextmanager
async def scene(
    topics: TestTopics, owned: set[int] | None = None, ttl_s: float = LONG_S
) -> AsyncIterator[Scene]:
    settings = load_settings(None, broker=topics.bootstrap, group=topics.prefix, session_timeout=6 * 10**9)
    feedback, rate = topics("feedback.v1"), topics("rate.v1")
    app = build_app(settings, "throttle", frozenset({feedback}))
    producer, valve = BarrierProducer(confluent_config(settings)), Valve()
    throttle = Throttle(valve, RateController(policy_of(settings), ttl_s), producer, rate, provider="unit")
    batch_agent(app, feedback, name="throttle", handle=throttle.take)
    every(app, 0.1, throttle.refresh, "refresh")
    store = Producer({"bootstrap.servers": topics.bootstrap})
    rates = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": f"{topics.prefix}rates"})
    rates.assign([TopicPartition(rate, p, 0) for p in range(4)])
    try:
        async with running(app):
            await eventually(
                lambda: assigned(app, [feedback]) == {TP(feedback, p) for p in range(4)}, "ready"
            )
            owned = set(range(4)) if owned is None else owned
            throttle.own(owned)
            at = Scene(throttle, valve, store, feedback, rates)
            # What an owner before it told does not hold any more: it says where things stand.
            told = await at.told(len(owned))
            assert {(one.partition, one.scale, one.since) for one in told} == {(p, 1.0, None) for p in owned}
            yield at
    finally:
        rates.close()
        await producer.close(1)


async def test_pressure_closes_and_opens_the_valve_of_its_partition_and_is_told(topics: TestTopics) -> None:
    async with scene(topics) as at:
        for level, scale in (("hard", 0.0), ("soft", 0.5), ("ok", 1.0)):
            at.say(level, 2)
            await eventually(lambda s=scale: at.valve.scale(2) == s, f"{level} has scale {scale}")
            assert at.valve.paused().keys() <= {2}
            [told] = await at.told(1)
            assert (told.provider, told.partition, told.scale, told.reason) == (
                "unit",
                2,
                scale,
                Level(level),
            )
            assert told.coordinator_id == "store-1"
        assert at.throttle.pauses == 1


async def test_what_changes_nothing_is_not_told_again(topics: TestTopics) -> None:
    async with scene(topics) as at:
        for _ in range(5):
            at.say("hard")
        await eventually(lambda: at.valve.scale(0) == 0, "it is closed")
        for _ in range(5):
            at.say("hard")
        at.say("hard", 1)
        await eventually(lambda: at.valve.scale(1) == 0, "all of it was read")
        assert sorted((told.partition, told.scale) for told in await at.told(2)) == [(0, 0.0), (1, 0.0)]


async def test_a_pause_ends_when_the_store_falls_silent(topics: TestTopics) -> None:
    async with scene(topics, ttl_s=TTL_S) as at:
        said = time.time()
        at.say("hard")
        await eventually(lambda: at.valve.scale(0) == 0, "it is closed")
        await eventually(lambda: at.valve.scale(0) == 1, "it is open")
        assert time.time() - said > TTL_S
        assert [(told.scale, told.coordinator_id) for told in await at.told(2)] == [
            (0.0, "store-1"),
            (1.0, None),
        ]


async def test_the_worst_of_two_stores_holds_until_it_is_silent(topics: TestTopics) -> None:
    async with scene(topics, ttl_s=TTL_S) as at:
        at.say("hard", by="stalled")
        await eventually(lambda: at.valve.scale(0) == 0, "it is closed")
        deadline = time.monotonic() + TTL_S * 0.6
        while time.monotonic() < deadline:
            at.say("ok", by="healthy")
            await asyncio.sleep(0.1)
        assert at.valve.scale(0) == 0
        for _ in range(40):
            at.say("ok", by="healthy")
            if at.valve.scale(0) == 1:
                break
            await asyncio.sleep(0.1)
        assert [told.coordinator_id for told in await at.told(2)] == ["stalled", "healthy"]


async def test_garbage_on_the_feedback_topic_changes_nothing(topics: TestTopics) -> None:
    async with scene(topics) as at:
        at.say("hard")
        await eventually(lambda: at.valve.scale(0) == 0, "it is closed")
        for value in (None, b"", b"\xff\xfe", b"[]", b'{"level": "ok"}', b'{"level": "ok"' * 1000):
            at.send(value)
        at.say("ok", 0, about=3)
        at.say("hard", 3, about=0)
        at.say("soft", 1)
        await eventually(lambda: at.valve.scale(1) == 0.5, "what comes after it is obeyed")
        assert at.valve.paused() == {0: 0.0, 1: 0.5}


async def test_only_owned_partitions_are_touched_and_others_are_let_go(topics: TestTopics) -> None:
    async with scene(topics, owned={0, 1}) as at:
        for partition in range(4):
            at.say("hard", partition)
        await eventually(lambda: at.valve.paused() == {0: 0.0, 1: 0.0}, "what is owned is closed")
        at.throttle.own({1, 2})
        assert at.valve.paused() == {1: 0.0}, "what is given away is let go"
        await eventually(
            lambda: at.valve.paused() == {1: 0.0, 2: 0.0}, "its store's last word holds for the new one"
        )
        assert {told.partition for told in await at.told(3)} == {0, 1, 2}
