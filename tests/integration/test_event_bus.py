"""Core's event bus on Apache Kafka: what is promised of groups, acknowledgements, failures and redelivery."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from market_data_core.events import JsonCodec
from market_data_core.events.envelope import EventEnvelope, EventMeta
from market_data_core.telemetry import FeedbackEvent
from market_data_store.coordinator.feedback import FeedbackEvent as StoreEvent
from market_data_store.pulse.config import PulseConfig
from market_data_store.pulse.publisher import FeedbackPublisherService

from schemas.errors import BadRecord, BrokerError, ConfigError
from streams.ecosystem.event_bus import KafkaEventBus
from streams.ecosystem.event_codec import EventCodec
from streams.ecosystem.once import Once
from support.containers import free_port
from support.events import DEADLINE_S, Streams, event, eventually, first, numbers
from support.kafka import TestTopics, records
from support.workers import ROOT, environment

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.covers("event bus"),
    pytest.mark.covers("event bus without Redis"),
]


@pytest.fixture
def streams(topics: TestTopics) -> Streams:
    return Streams(topics)


async def test_what_was_published_before_there_was_a_group_is_for_it_too(streams: Streams) -> None:
    async with streams.bus() as bus:
        ids = [await bus.publish(streams.name, event(n), key="bars") for n in range(3)]
        assert ids == [f"{streams.name}[0]@{n}" for n in range(3)]
        async with streams.take(bus) as envelopes:
            got = await first(envelopes, 3)
            assert numbers(got) == [0, 1, 2]
            assert [one.id for one in got] == [f"{id_}#{streams.topics.prefix}g" for id_ in ids]
            assert [one.key for one in got] == ["bars"] * 3
            await bus.publish(streams.name, event(3))
            assert numbers(await first(envelopes, 1)) == [3]


@pytest.mark.parametrize("track", ["v1", "v2"])
async def test_feedback_by_each_schema_id_is_the_same_event(streams: Streams, track: str) -> None:
    said = event(7, "hard")
    meta = EventMeta(schema_id="telemetry.FeedbackEvent", track=track, headers={"reason": "circuit_open"})
    doubled = EventEnvelope(id="", key="bars", ts=1.0, meta=meta, payload=said)
    codec = JsonCodec(track)
    for schema_id, value in (
        ("telemetry.FeedbackEvent", said),
        ("telemetry.backpressure.FeedbackEvent", said),
        ("events.envelope.EventEnvelope", doubled),
    ):
        streams.produce(codec.encode(schema_id, value, key="bars"), b"bars")
    async with streams.bus(track=track) as bus:
        await bus.publish(streams.name, said, key="bars")
        async with streams.take(bus) as envelopes:
            got = await first(envelopes, 4)
    assert [one.payload for one in got] == [said] * 4
    assert {(one.key, one.meta.track) for one in got} == {("bars", track)}
    assert got[2].meta.headers["reason"] == "circuit_open"
    written = records(streams.topics.bootstrap, streams.name)[3].value()
    assert JsonCodec().decode(written, FeedbackEvent).meta.schema_id == "telemetry.FeedbackEvent"


async def test_market_data_store_publishes_through_it(streams: Streams) -> None:
    publisher = FeedbackPublisherService(
        PulseConfig(enabled=True, backend="inmem", ns=streams.topics.prefix[:-1])
    )
    streams.topics("telemetry.feedback", 1)
    streams.topics("telemetry.feedback.dlq", 1)
    async with streams.bus() as bus:
        publisher._bus = bus  # it makes one by itself of core's two only
        await publisher.publish_feedback("bars", 900, 1000, event(0, "hard").level, reason="circuit_open")
        await bus.publish(
            f"{streams.topics.prefix}telemetry.feedback", StoreEvent.create("b", 1, 2, event(0).level)
        )
        envelopes = bus.subscribe(
            f"{streams.topics.prefix}telemetry.feedback", group=f"{streams.topics.prefix}p", consumer="c"
        )
        one, two = await first(envelopes, 2)
        await envelopes.aclose()
    assert (one.payload.queue_size, one.payload.level.value, one.key) == (900, "hard", "bars")
    assert one.meta.headers == {"reason": "circuit_open", "utilization": "0.900000"}
    assert two.payload.coordinator_id == "b"


@pytest.mark.covers("fan-out")
async def test_two_groups_each_get_everything_and_acknowledge_for_themselves(streams: Streams) -> None:
    async with streams.bus() as bus:
        for n in range(3):
            await bus.publish(streams.name, event(n))
        async with streams.take(bus, "one") as one, streams.take(bus, "two") as two:
            of_one, of_two = await first(one, 3), await first(two, 3)
            assert numbers(of_one) == numbers(of_two) == [0, 1, 2]
            for envelope in of_one:
                await bus.ack(streams.name, envelope.id)
            with pytest.raises(BadRecord, match="several groups"):
                await bus.ack(streams.name, f"{streams.name}[0]@0")
        assert streams.committed("one") == [3]
        assert streams.committed("two") == [0]


async def test_acknowledged_in_any_order_only_what_has_nothing_before_it_is_committed(
    streams: Streams,
) -> None:
    async with streams.bus() as bus:
        for n in range(5):
            await bus.publish(streams.name, event(n))
        async with streams.take(bus) as envelopes:
            got = await first(envelopes, 5)
            for n in (1, 4, 2):
                await bus.ack(streams.name, got[n].id)
            await bus.ack(streams.name, got[2].id)  # twice is once
        assert streams.committed("g") == [0]
        async with streams.take(bus) as envelopes:
            again = await first(envelopes, 5)
            assert [one.id for one in again] == [one.id for one in got]
            for n in (1, 0, 3):
                await bus.ack(streams.name, again[n].id)
        assert streams.committed("g") == [2]
        async with streams.take(bus) as envelopes:
            assert numbers(await first(envelopes, 3)) == [2, 3, 4]


async def test_what_is_failed_or_garbage_is_dead_lettered_with_its_bytes_and_passed_over(
    streams: Streams,
) -> None:
    async with streams.bus() as bus:
        await bus.publish(streams.name, event(0), key="bars")
        streams.produce(b"\xff garbage", b"key")
        streams.produce(None)
        await bus.publish(streams.name, event(1))
        async with streams.take(bus) as envelopes:
            zero, one = await first(envelopes, 2)
            await bus.fail(streams.name, zero.id, "no such partition: näh")
            await bus.ack(streams.name, one.id)
            assert numbers([zero, one]) == [0, 1]
    assert streams.committed("g") == [4]
    taken = records(streams.topics.bootstrap, streams.name)
    buried = records(streams.topics.bootstrap, streams.dead_letters)
    assert sorted((letter.key(), letter.value()) for letter in buried if letter.value()) == sorted(
        (record.key(), record.value()) for record in (taken[0], taken[1])
    )
    headers = {letter.value(): dict(letter.headers()) for letter in buried}
    assert headers[taken[0].value()] == {
        "reason": "no such partition: näh".encode(),
        "original_id": zero.id.encode(),
        "group": f"{streams.topics.prefix}g".encode(),
    }
    assert b"not an event" in headers[b"\xff garbage"]["reason"]
    assert headers[b""]["reason"] == b"not an event: the record has no value"


async def test_an_event_that_is_left_unacknowledged_comes_again_and_is_applied_once(
    streams: Streams,
) -> None:
    once, applied, seen = Once(), [], []

    async def apply(envelope: EventEnvelope[FeedbackEvent]) -> None:
        applied.append(envelope.payload.queue_size)

    async with streams.bus(redeliver_after_s=0.3) as bus:
        for n in range(2):
            await bus.publish(streams.name, event(n))
        async with streams.take(bus) as envelopes, asyncio.timeout(DEADLINE_S):
            async for envelope in envelopes:
                seen.append(envelope.id)
                await once.apply(envelope, apply)
                if envelope.payload.queue_size == 1:
                    await bus.ack(streams.name, envelope.id)
                if seen.count(seen[0]) == 3:
                    await bus.ack(streams.name, envelope.id)
                    break
    assert applied == [0, 1]
    assert seen.count(f"{streams.name}[0]@1#{streams.topics.prefix}g") == 1, "what is done stays so"
    assert streams.committed("g") == [2]


async def test_a_consumer_is_given_no_more_than_it_may_have_in_hand(streams: Streams) -> None:
    async with streams.bus(redeliver_after_s=0.2, max_in_hand=2) as bus:
        for n in range(5):
            await bus.publish(streams.name, event(n))
        async with streams.take(bus) as envelopes:
            given = await first(envelopes, 6)
            assert sorted(numbers(given)) == [0, 0, 0, 1, 1, 1]
            for envelope in given[:2]:
                await bus.ack(streams.name, envelope.id)
            given = await first(envelopes, 4)
            assert set(numbers(given)) == {2, 3}


@contextmanager
def consumer(streams: Streams, name: str, folder: Path, hold: int = -1) -> Iterator[subprocess.Popen[str]]:
    program = str(ROOT / "tests" / "support" / "event_consumer.py")
    group = f"{streams.topics.prefix}g"
    with subprocess.Popen(
        [
            sys.executable,
            program,
            streams.topics.bootstrap,
            streams.name,
            group,
            name,
            str(folder),
            str(hold),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.covers("recovery")
def test_a_consumer_that_is_killed_in_the_midst_of_an_event_leaves_it_to_another_one(
    streams: Streams, tmp_path: Path
) -> None:
    async def publish(numbers: range) -> None:
        async with streams.bus() as bus:
            for n in numbers:
                await bus.publish(streams.name, event(n))

    def all_applied() -> bool:
        return {path.name for path in tmp_path.iterdir()} == {str(n) for n in range(20)}

    asyncio.run(publish(range(10)))
    with consumer(streams, "one", tmp_path, hold=5) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "holding\n"
        one.kill()
    with consumer(streams, "two", tmp_path):
        asyncio.run(publish(range(10, 20)))
        asyncio.run(eventually(all_applied, "the other one applies all the rest"))
    applied = {int(path.name): path.read_text().split() for path in tmp_path.iterdir()}
    assert len(applied[5]) == 2, "the event came again"
    for n, ids in applied.items():
        assert set(ids) == {f"{streams.name}[0]@{n}#{streams.topics.prefix}g"}, "under the same id"
    assert all(len(applied[n]) == 1 for n in range(6, 20))


async def test_consumers_of_a_group_share_the_partitions_and_nothing_is_lost_when_they_do(
    topics: TestTopics,
) -> None:
    streams = Streams(topics, partitions=4)
    done: set[int] = set()

    async def work(bus: KafkaEventBus, name: str) -> None:
        async with streams.take(bus, consumer=name) as envelopes:
            async for envelope in envelopes:
                done.add(envelope.payload.queue_size)
                await bus.ack(streams.name, envelope.id)

    async with streams.bus() as bus:
        one = asyncio.create_task(work(bus, "one"))
        for n in range(20):
            await bus.publish(streams.name, event(n), key=str(n))
        await eventually(lambda: len(done) == 20, "one has all")
        two = asyncio.create_task(work(bus, "two"))
        for n in range(20, 60):
            await bus.publish(streams.name, event(n), key=str(n))
        await eventually(lambda: streams.group("g").owned_by(2, streams.name), "they share")
        for n in range(60, 80):
            await bus.publish(streams.name, event(n), key=str(n))
        await eventually(lambda: done == set(range(80)), "nothing is lost")
        for task in (one, two):
            task.cancel()
        await asyncio.wait([one, two])
    assert sum(streams.committed("g")) == 80


async def test_an_acknowledgement_that_comes_too_late_is_none(
    topics: TestTopics, caplog: pytest.LogCaptureFixture
) -> None:
    streams = Streams(topics, partitions=2)
    async with streams.bus() as bus, streams.bus() as other:
        for partition in range(2):
            data, _ = EventCodec().encode(event(partition))
            streams.produce(data, partition=partition)
        async with streams.take(bus, consumer="one") as one, streams.take(other, consumer="two") as two:
            both = {envelope.id for envelope in await first(one, 2)}
            (moved,) = await first(two, 1)
            assert moved.id in both
            with caplog.at_level("INFO"):
                await bus.ack(streams.name, moved.id)
        assert streams.committed("g") == [0, 0]
        assert f"{moved.id} is not in hand" in caplog.text


async def test_what_is_not_there_or_cannot_be_meant_is_a_clear_error(streams: Streams) -> None:
    missing = f"{streams.topics.prefix}none"
    async with streams.bus() as bus:
        with pytest.raises(
            BrokerError, match=rf"lacks {re.escape(missing)} and {re.escape(missing)}\.dlq"
        ) as lacks:
            await bus.publish(missing, event(0))
        assert f"kafka-topics.sh --create --topic {missing}" in lacks.value.hint
        assert "create_partitions" in lacks.value.hint
        with pytest.raises(BrokerError, match="lacks"):
            await anext(bus.subscribe(missing, group="g", consumer="c"))
        with pytest.raises(ConfigError, match="no name of a topic"):
            await bus.publish("mdp:telemetry", event(0))
        with pytest.raises(ConfigError, match="tidegate-bars is the group of the workers"):
            await anext(bus.subscribe(streams.name, group="tidegate-bars", consumer="c"))
        with pytest.raises(BadRecord, match="is no id"):
            await bus.ack(streams.name, "1234-0")
        with pytest.raises(BadRecord, match="no such subscription"):
            await bus.fail(streams.name, f"{streams.name}[0]@0#g", "why")
        assert (await bus.health())["status"] == "ok"

    async with KafkaEventBus(f"127.0.0.1:{free_port()}") as nobody:
        health, *errors = await asyncio.gather(
            nobody.health(),
            nobody.publish("stream", event(0)),
            anext(nobody.subscribe("stream", group="g", consumer="c")),
            return_exceptions=True,
        )
        assert isinstance(health, dict)
        assert (health["backend"], health["status"]) == ("kafka", "error")
        assert all(isinstance(value, str) for value in health.values())
        for error in errors:
            assert isinstance(error, BrokerError)
            assert "did not answer" in str(error)


async def test_a_stream_is_made_where_that_is_asked_for(topics: TestTopics) -> None:
    settings = Streams(topics).settings
    stream = f"{topics.prefix}made"
    async with KafkaEventBus(settings, create_partitions=3) as bus:
        assert (await bus.publish(stream, event(0), key="k")).startswith(f"{stream}[")
        async with asyncio.timeout(DEADLINE_S):
            envelope = await anext(bus.subscribe(stream, group=f"{topics.prefix}g", consumer="c"))
        assert envelope.payload.queue_size == 0
    made = AdminClient({"bootstrap.servers": topics.bootstrap}).list_topics(timeout=10).topics
    assert {name: len(made[name].partitions) for name in (stream, f"{stream}.dlq")} == {
        stream: 3,
        f"{stream}.dlq": 3,
    }


def test_bytes_of_the_wire_are_plain_json(streams: Streams) -> None:
    async def publish() -> None:
        async with streams.bus() as bus:
            await bus.publish(streams.name, event(0), key="bars")

    asyncio.run(publish())
    (record,) = records(streams.topics.bootstrap, streams.name)
    body = json.loads(record.value())
    assert set(body) == {"ts", "key", "meta", "payload"}
    assert record.key() == b"bars"
