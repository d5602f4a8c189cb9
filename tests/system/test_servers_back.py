"""Servers are killed and come back: who needs them says so, waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from confluent_kafka import Producer

from schemas.errors import BrokerError
from schemas.health import HealthState
from streams.ecosystem import links
from streams.ecosystem.event_bus import KafkaEventBus
from streams.settings import load_settings
from support.events import Streams, event
from support.events import eventually as on_this_loop
from support.following import Bench, seen
from support.kafka import Kafka, TestTopics
from support.ops_site import OpsSite
from support.probing import quickly
from support.pulse import TTL_S, Ends
from support.redis_server import Redis
from support.wait import eventually, until

pytestmark = pytest.mark.kafka


@pytest.mark.end_to_end
@pytest.mark.covers("HealthStatus")
def test_a_broker_that_is_away_for_long_makes_a_worker_unready_until_it_is_back(
    own_kafka: Kafka, tmp_path: Path
) -> None:
    site = OpsSite(TestTopics(own_kafka.address), f"duckdb:{tmp_path / 'bars.duckdb'}", tmp_path)
    with site.worker(session_timeout="6s") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready and probe.part("broker")["state"] == "healthy", 60, "it is ready")
        own_kafka.kill()

        def state(path: str = "/readyz") -> tuple[int, str]:
            for each in ("/healthz", "/metrics"):
                assert quickly(probe, each)[0] == 200
            return probe.health(path)[0], probe.part("broker")["state"]

        until(lambda: state() == (200, "degraded"), 20, "it notices, and waits")
        until(lambda: state() == (503, "unhealthy"), 20, "it has waited for longer than a session lasts")
        assert float(probe.part("broker")["away_s"]) >= 6
        own_kafka.resume()
        until(lambda: state() == (200, "healthy"), 60, "the broker is back")


async def test_subscribers_go_on_by_themselves_when_the_broker_is_back(own_kafka: Kafka) -> None:
    topics = TestTopics(own_kafka.address)
    settings = load_settings(None, broker=topics.bootstrap, topic_prefix=topics.prefix)
    producer = Producer({"bootstrap.servers": topics.bootstrap, "log_level": 0})
    bench = Bench(topics, settings, producer, topics("feedback.v1"), topics("rate.v1"))
    async with seen(bench.follow()) as alone, seen(bench.follow("back")) as grouped:
        async with seen(bench.follow("gone")) as gone:
            bench.say(3)
            for one in (alone, grouped, gone):
                await on_this_loop(lambda s=one: s.numbers == [0, 1, 2], "they get what is said")
            await asyncio.to_thread(own_kafka.kill)
            leaving = time.monotonic()
            await gone.end()
            assert time.monotonic() - leaving < 20, "who leaves does not wait for the broker"
        await asyncio.to_thread(own_kafka.resume)
        bench.say(3)
        await on_this_loop(lambda: alone.numbers == list(range(6)), "it goes on, and nothing comes twice", 60)
        await on_this_loop(lambda: set(grouped.numbers) == set(range(6)), "the group goes on", 60)
        assert sorted(set(grouped.numbers)) == list(dict.fromkeys(grouped.numbers))


@pytest.mark.covers("event bus")
@pytest.mark.covers("event bus without Redis")
@pytest.mark.covers("recovery")
async def test_the_event_bus_goes_on_by_itself_when_the_broker_is_back(own_kafka: Kafka) -> None:
    ours = Streams(TestTopics(own_kafka.address))
    done: list[int] = []

    async def work(bus: KafkaEventBus) -> None:
        async with ours.take(bus) as envelopes:
            async for envelope in envelopes:
                done.append(envelope.payload.queue_size)
                await bus.ack(ours.name, envelope.id)

    async with ours.bus(publish_timeout_s=2.0) as bus:
        working = asyncio.create_task(work(bus))
        await bus.publish(ours.name, event(0))
        await on_this_loop(lambda: done == [0], "it works")
        await asyncio.to_thread(own_kafka.kill)
        with pytest.raises(BrokerError, match="not acknowledged") as away:
            await bus.publish(ours.name, event(1))
        assert "reachable" in away.value.hint
        await asyncio.to_thread(own_kafka.resume)
        await bus.publish(ours.name, event(2))
        await on_this_loop(lambda: 2 in done, "it goes on", 60)
        assert not working.done()
        working.cancel()
        await asyncio.wait([working])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged of sides that go and come."""
    events: list[str] = []

    def take(logger: object, method: str, entry: MutableMapping[str, Any]) -> str:
        events.append(entry["event"])
        raise structlog.DropEvent

    own = structlog.wrap_logger(None, processors=[take], cache_logger_on_first_use=False)
    monkeypatch.setattr(links, "log", own)
    return events


@pytest.fixture
async def ends_on_own_redis(own_redis: Redis, topics: TestTopics) -> AsyncIterator[Ends]:
    ends = Ends(own_redis.url, topics)
    yield ends
    await ends.close()


@pytest.fixture
async def ends_on_own_kafka(own_kafka: Kafka, redis: str) -> AsyncIterator[Ends]:
    ends = Ends(redis, TestTopics(own_kafka.address))
    yield ends
    await ends.close()


@pytest.mark.covers("pulse bridge")
@pytest.mark.covers("recovery")
async def test_redis_is_killed_and_comes_back(
    own_redis: Redis, ends_on_own_redis: Ends, said: list[str]
) -> None:
    ends = ends_on_own_redis
    async with ends.bridge() as bridge:
        await ends.say("hard")
        await eventually(lambda: bridge.counts.repeated > 0, 30, "hard is repeated")
        await asyncio.to_thread(own_redis.kill)
        await eventually(lambda: bridge.health().state == HealthState.degraded, 30, "it is noticed")
        count = bridge.counts.repeated
        await eventually(
            lambda: time.time() - ends.heard()[-1].ts > 2 * TTL_S,
            20,
            "nobody speaks for stores that cannot be heard",
        )
        assert bridge.counts.repeated == count
        assert "away for" in bridge.health().details["bus"]
        await asyncio.to_thread(own_redis.resume)
        await eventually(lambda: bridge.counts.repeated > count, 20, "it is repeated again")
        assert bridge.health().state == HealthState.healthy
        await ends.forget_connections()
        await ends.say("ok")
        await eventually(lambda: ends.last() == {"ok"}, 30, "ok")
        await eventually(lambda: ends.pending() == 0, 30, "all is acknowledged")
    assert said == ["bus.away", "bus.back"], "each once"


@pytest.mark.covers("pulse bridge")
@pytest.mark.covers("recovery")
async def test_kafka_is_killed_and_comes_back_and_nothing_is_acknowledged_before(
    own_kafka: Kafka, ends_on_own_kafka: Ends, said: list[str]
) -> None:
    ends = ends_on_own_kafka

    def told() -> list[str]:
        return [level for level, _ in itertools.groupby(f.level.value for f in ends.heard())]

    async with ends.bridge() as bridge:
        await ends.say("ok")  # which is not repeated, so that nobody notices before something is to be told
        await eventually(lambda: ends.last() == {"ok"}, 30, "ok")
        await asyncio.to_thread(own_kafka.kill)
        await ends.say("hard")
        await eventually(lambda: bridge.health().state == HealthState.degraded, 30, "it is noticed")
        assert ends.pending() == 1, "what Kafka has not taken is not done"
        await ends.say("ok")
        assert ends.undone() == 2
        await asyncio.to_thread(own_kafka.resume)
        await eventually(lambda: bridge.health().state == HealthState.healthy, 30, "it is back")
        await eventually(lambda: ends.undone() == 0, 30, "all is acknowledged")
        # Who listens comes back later than who speaks, so what is heard until now may be the first word only.
        await eventually(lambda: told() == ["ok", "hard", "ok"], 30, "what waited is told, in its order")
        await eventually(lambda: ends.last() == {"ok"}, 30, "on each partition")
    assert said == ["kafka.away", "kafka.back"], "each once"
