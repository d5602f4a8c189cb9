"""Core's feedback publisher and rate controller on Apache Kafka: real partitions of real workers obey."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from market_data_core.telemetry import BackpressureLevel, FeedbackEvent, RateAdjustment
from market_data_store.coordinator import WriteCoordinator, feedback_bus

from schemas.errors import BrokerError
from schemas.feedback import Feedback, decode_feedback
from schemas.health import HealthState
from streams.ecosystem.feedback_bus import FeedbackBus
from streams.ecosystem.feedback_handler import FeedbackHandler
from streams.ecosystem.rate import KafkaRateController, RateCoordinatorAdapter
from streams.settings import Settings, load_settings
from support.containers import free_port
from support.coordinator import Coordinator
from support.events import event, eventually
from support.kafka import TestTopics, records
from support.scene import ALL, Scene, held
from support.wait import until
from support.workers import wait_assigned

pytestmark = pytest.mark.kafka

NOBODY = "postgresql://nobody@127.0.0.1:1/none"


def settings_of(topics: TestTopics) -> Settings:
    return load_settings(None, broker=topics.bootstrap, topic_prefix=topics.prefix)


class Said:
    """What has been said on each partition so far."""

    def __init__(self, topics: TestTopics) -> None:
        self._consumer = Consumer({"bootstrap.servers": topics.bootstrap, "group.id": "none", "log_level": 0})
        topic = f"{topics.prefix}feedback.v1"
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in ALL])
        self._said: dict[int, list[Feedback]] = {partition: [] for partition in ALL}

    def __call__(self, partition: int = 0) -> list[Feedback]:
        for record in self._consumer.consume(1000, 0.05):
            assert record.error() is None
            self._said[record.partition()].append(decode_feedback(record.value()))
        return self._said[partition]


def adjustment(scale: float, level: str = "soft", provider: str = "ibkr") -> RateAdjustment:
    return RateAdjustment(provider=provider, scale=scale, reason=BackpressureLevel(level), ts=time.time())


class Heard:
    """A subscriber that writes down what it gets."""

    def __init__(self) -> None:
        self.events: list[FeedbackEvent] = []

    async def __call__(self, event: FeedbackEvent) -> None:
        self.events.append(event)


@pytest.mark.covers("FeedbackPublisher")
async def test_an_event_is_told_to_each_partition_and_repeated_while_the_bus_is_open(
    topics: TestTopics,
) -> None:
    topics("feedback.v1")
    said, one = Said(topics), event(900, "hard")
    async with FeedbackBus(settings_of(topics), repeat_s=0.05) as bus:
        assert await bus.publish(one) is None  # type: ignore[func-returns-value]
        for partition in ALL:
            await eventually(lambda p=partition: bool(said(p)), "it is told")
            first = said(partition)[0]
            assert (first.coordinator_id, first.queue_size, first.capacity) == ("bars", 900, 1000)
            assert (first.level.value, first.partition, first.ts) == ("hard", partition, one.ts)
        await eventually(lambda: len(said()) > 3, "it is repeated")
        await bus.publish(event(1, "ok"))
        told = len(said())
        await eventually(lambda: len(said()) > told + 2, "what was said last is repeated")
        assert bus.health().state is HealthState.healthy
    levels = [feedback.level.value for feedback in said()]
    assert levels == sorted(levels), "hard, then ok, and hard no more"
    times = [feedback.ts for feedback in said()]
    assert times == sorted(set(times)), "the later word has the higher ts"
    assert len({feedback.epoch for feedback in said()}) == 1


@pytest.mark.covers("FeedbackPublisher")
async def test_an_event_is_told_to_the_partitions_that_are_named(topics: TestTopics) -> None:
    topics("feedback.v1")
    said = Said(topics)
    async with FeedbackBus(settings_of(topics), partitions=[1, 3], repeat_s=60) as bus:
        await bus.publish(event(1))
        await eventually(lambda: bool(said(1)) and bool(said(3)), "it is told")
    assert [len(said(partition)) for partition in ALL] == [0, 1, 0, 1]
    with pytest.raises(BrokerError, match="has no partition 4"):
        await FeedbackBus(settings_of(topics), partitions=[4]).publish(event(1))


@pytest.mark.covers("concurrent stores")
async def test_processes_that_share_a_coordinator_id_are_told_apart_by_name(topics: TestTopics) -> None:
    topics("feedback.v1")
    applied: list[str] = []

    class Provider:
        async def apply(self, adjustment: RateAdjustment) -> None:
            applied.append(adjustment.reason.value)

    handler = FeedbackHandler(Provider(), "ibkr")
    async with (
        FeedbackBus(settings_of(topics), name="one") as one,
        FeedbackBus(settings_of(topics), name="two") as two,
    ):
        two.subscribe(handler.handle)
        await one.publish(event(900, "hard", "default"))
        await eventually(lambda: applied[-1:] == ["hard"], "one is full")
        await two.publish(event(1, "ok", "default"))
        heard = len(applied)
        await eventually(lambda: len(applied) > heard + 2, "both go on speaking")
        assert set(applied[heard:]) == {"hard"}, "that two is well does not end what one asked for"
        await one.publish(event(1, "ok", "default"))
        await eventually(lambda: applied[-1] == "ok", "both are well")
    await handler.close()


@pytest.mark.covers("FeedbackEvent")
@pytest.mark.covers("fan-out")
async def test_subscribers_of_every_bus_hear_each_event_once_and_one_that_fails_keeps_nothing_from_others(
    topics: TestTopics,
) -> None:
    topics("feedback.v1")
    here, there = Heard(), Heard()

    async def failing(event: FeedbackEvent) -> None:
        raise ValueError("the subscriber's own")

    async with (
        FeedbackBus(settings_of(topics), repeat_s=60) as bus,
        FeedbackBus(settings_of(topics), repeat_s=60) as other,
    ):
        for subscriber in (failing, here, here):
            bus.subscribe(subscriber)
        other.subscribe(there)
        assert bus.subscriber_count == 2
        sent = [event(n, level) for n, level in enumerate(("ok", "soft", "hard"))]
        for one in sent:
            await bus.publish(one)
        await eventually(lambda: len(here.events) == len(there.events) == 3, "all are heard")
        assert here.events == there.events
        # The ts of one that waited for the broker is that of when it was told.
        assert [one.model_copy(update={"ts": 0.0}) for one in here.events] == [
            one.model_copy(update={"ts": 0.0}) for one in sent
        ]
        assert [one.ts for one in here.events] == sorted(one.ts for one in here.events)
        bus.unsubscribe(here)
        await bus.publish(event(3))
        await eventually(lambda: len(there.events) == 4, "the other one hears on")
        assert len(here.events) == 3
    await bus.close()


@pytest.mark.covers("feedback loop")
@pytest.mark.covers("escalation")
async def test_a_program_slows_its_own_provider_down_by_what_stores_say(topics: TestTopics) -> None:
    topics("feedback.v1")
    applied: list[tuple[float, str]] = []

    class Provider:
        async def apply(self, adjustment: RateAdjustment) -> None:
            applied.append((adjustment.scale, adjustment.reason.value))

    handler = FeedbackHandler(Provider(), "ibkr", {"soft": 0.3}, ttl_s=1.0)
    async with FeedbackBus(settings_of(topics)) as bus:
        bus.subscribe(handler.handle)
        with Coordinator(topics.bootstrap, f"{topics.prefix}feedback.v1", heartbeat_s=0.2) as store:
            for level, scale in (("soft", 0.3), ("hard", 0.0)):
                await asyncio.to_thread(store.say, dict.fromkeys(ALL, level))
                await eventually(lambda s=scale, n=level: applied[-1:] == [(s, n)], f"{level} is applied")
        # The store is gone, and said no good-bye.
        await eventually(lambda: applied[-1] == (1.0, "ok"), "its pause ends")
    await handler.close()
    told = [step for step, _ in itertools.groupby(applied)]
    assert told == [(0.3, "soft"), (0.0, "hard"), (1.0, "ok")], "each in its turn, and nothing between"


class GatedSink:
    """A database that writes when it may."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def write(self, batch: Sequence[int]) -> None:
        await self.open.wait()


@pytest.mark.covers("event bus without Redis")
@pytest.mark.covers("feedback loop")
async def test_market_data_store_s_own_coordinator_speaks_on_kafka_without_redis(topics: TestTopics) -> None:
    topics("feedback.v1")
    said, sink = Said(topics), GatedSink()
    async with FeedbackBus(settings_of(topics), repeat_s=60) as bus:
        feedback_bus().subscribe(bus.publish)
        try:
            async with WriteCoordinator[int](
                sink=sink, capacity=10, workers=1, batch_size=2, flush_interval=0.05, coord_id="bars"
            ) as store:
                for n in range(10):
                    await store.submit(n)
                await eventually(lambda: bool(said()) and said()[-1].level.value == "hard", "it is full")
                sink.open.set()
                await eventually(lambda: said()[-1].level.value == "ok", "it has drained")
        finally:
            feedback_bus().unsubscribe(bus.publish)
    assert {feedback.level.value for feedback in said()} == {"soft", "hard", "ok"}
    assert {feedback.coordinator_id for feedback in said()} == {"bars"}


@pytest.mark.end_to_end
@pytest.mark.covers("FeedbackPublisher")
@pytest.mark.covers("RateController")
@pytest.mark.covers("RateAdjustment")
@pytest.mark.covers("BackpressureLevel")
@pytest.mark.covers("feedback loop")
async def test_what_is_published_or_applied_holds_the_ticks_of_real_workers_back(
    kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    scene = Scene(kafka, topics, NOBODY, tmp_path, 'feedback_ttl = "2s"', 'follow_lag = "false"')

    async def sees(condition: Callable[[], bool], what: str) -> None:
        # In a thread: what asks the broker must not keep the voices in this loop from repeating themselves.
        await asyncio.to_thread(until, condition, 20, what)

    with scene.worker("bars", "bars") as bars, scene.load() as load:

        def all_at(scale: float) -> bool:
            return held([bars]) == (dict.fromkeys(ALL, scale) if scale < 1 else {})

        await asyncio.to_thread(wait_assigned, scene.bars_group, 1, scene.ticks, [bars])
        await sees(lambda: scene.keeps_up(load), "it keeps up")
        settings = settings_of(topics)

        async with FeedbackBus(settings, repeat_s=0.3) as bus:
            await bus.publish(event(900, "hard"))
            await sees(lambda: all_at(0.0), "all are paused")
            paused_at = time.monotonic()
            await sees(
                lambda: time.monotonic() - paused_at > 2.5, "more time passes than feedback counts for"
            )
            assert all_at(0.0), "what was said once still holds"
            await bus.publish(event(1, "ok"))
            await sees(lambda: all_at(1.0), "all are resumed")
        await sees(lambda: scene.keeps_up(load), "it has caught up")

        async with KafkaRateController(settings, repeat_s=0.3) as rate:
            adapter = RateCoordinatorAdapter(rate)
            await rate.apply(adjustment(0.5))
            await sees(lambda: all_at(0.5), "all are slowed")
            produced, began = len(load.sent), time.monotonic()
            consumed = sum(await asyncio.to_thread(scene.rates, 3.0))
            assert 0.35 < consumed / ((len(load.sent) - produced) / (time.monotonic() - began)) < 0.65
            await adapter.apply(adjustment(0.0, "hard"))
            await sees(lambda: all_at(0.0), "all are paused")
            await adapter.apply(adjustment(1.0, "ok"))
            await sees(lambda: all_at(1.0), "all are resumed")
            await rate.apply(adjustment(0.2, "hard", "another"))
            await sees(lambda: all_at(0.2), "the lowest holds")
        # Whoever asked for it is gone: the pause ends by itself.
        await sees(lambda: all_at(1.0), "all are resumed")
        load.stop()
        assert await asyncio.to_thread(bars.stop) == 0
    # What the workers decided is core's, too.
    told = await asyncio.to_thread(records, kafka, f"{topics.prefix}rate.v1", 0)
    decided = [RateAdjustment.model_validate_json(record.value()) for record in told]
    steps = [(one.scale, one.reason.value) for one in decided if one.scale < 1]
    assert steps == [(0.0, "hard"), (0.5, "soft"), (0.0, "hard"), (0.2, "hard")]


async def test_a_topic_or_a_broker_that_is_not_there_is_a_clear_error(topics: TestTopics) -> None:
    settings = settings_of(topics)
    with pytest.raises(BrokerError, match=r"lacks topic .*feedback\.v1") as lacks:
        await FeedbackBus(settings).publish(event(1))
    assert "tidegate topics apply" in lacks.value.hint
    with pytest.raises(BrokerError, match="lacks topic"):
        async with FeedbackBus(settings):
            pass
    nobody = KafkaRateController(f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerError, match="did not answer"):
        await nobody.apply(adjustment(0.5))
    await nobody.close()
