"""The embedded broker: what it has, how soon a group begins, and who is told to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streams import embedded
from streams.embedded import PARTITIONS, EmbeddedBroker, Pacer

pytestmark = pytest.mark.embedded


def _unusable(topics: object, partitions: int) -> None:
    raise AttributeError("undefined symbol: rd_kafka_mock_cluster_new")


@pytest.fixture(params=["by librdkafka", "by the Python client"])
def broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedBroker]:
    if request.param == "by the Python client":
        monkeypatch.setattr(embedded, "MockCluster", _unusable)
    broker = EmbeddedBroker(["some.ticks", "some.bars"])
    yield broker
    broker.close()


def test_it_has_its_topics_with_all_their_partitions(broker: EmbeddedBroker) -> None:
    topics = AdminClient({"bootstrap.servers": broker.address}).list_topics(timeout=10).topics

    assert {name: len(topic.partitions) for name, topic in topics.items()} == {
        "some.ticks": PARTITIONS,
        "some.bars": PARTITIONS,
    }


def test_what_is_produced_is_read_by_a_group(broker: EmbeddedBroker) -> None:
    producer = Producer({"bootstrap.servers": broker.address})
    producer.produce("some.ticks", b"a tick", partition=2)
    assert producer.flush(10) == 0

    consumer = _member(broker)
    message = consumer.poll(20)

    assert message is not None
    assert (message.value(), message.partition(), message.error()) == (b"a tick", 2, None)
    consumer.close()


def test_a_group_does_not_wait_three_seconds_for_more_members() -> None:
    broker = EmbeddedBroker(["some.ticks"])
    consumer = _member(broker)
    deadline = time.monotonic() + 2.5
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(0.05)

    assert len(consumer.assignment()) == PARTITIONS
    consumer.close()
    broker.close()


async def test_a_pacer_tells_that_somebody_waits() -> None:
    told = asyncio.Event()
    pacer = Pacer(limit_bytes=100)
    pacer.on_wait = told.set
    await pacer.pace(0, 80)
    await pacer.pace(1, 80)
    assert not told.is_set()

    waiting = asyncio.create_task(pacer.pace(0, 80))
    async with asyncio.timeout(5):
        await told.wait()
        pacer.consumed(0, 0)
        await waiting


def _member(broker: EmbeddedBroker) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": broker.address, "group.id": "readers", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["some.ticks"])
    return consumer
