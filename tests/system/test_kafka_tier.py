"""What the other integration tests take for granted of their broker and database."""

from __future__ import annotations

import asyncpg
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from support.kafka import Kafka, TestTopics
from support.postgres import Postgres


def test_a_topic_has_the_partitions_and_settings_asked_for(topics: TestTopics) -> None:
    topic = topics("bars.v1", partitions=3, cleanup_policy="compact")

    assert topic == f"{topics.prefix}bars.v1"
    assert len(topics.admin.list_topics(topic, timeout=10).topics[topic].partitions) == 3


def test_a_topic_that_nobody_made_is_not_made_by_asking(topics: TestTopics) -> None:
    topic = f"{topics.prefix}none"

    topics.admin.list_topics(topic, timeout=10)

    assert topic not in topics.admin.list_topics(timeout=10).topics


def test_one_node_runs_transactions(topics: TestTopics) -> None:
    topic = topics()
    producer = Producer({"bootstrap.servers": topics.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"kept", partition=0)
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, b"taken back", partition=0)
    producer.flush(10)
    producer.abort_transaction(30)

    assert read_all(topics.bootstrap, topic) == [b"kept"]


def test_a_killed_broker_comes_back_on_its_port_with_its_log(own_kafka: Kafka) -> None:
    topics = TestTopics(own_kafka.address)
    topic = topics(partitions=1)
    producer = Producer({"bootstrap.servers": own_kafka.address, "log_level": 0})
    producer.produce(topic, b"before", partition=0)
    assert producer.flush(10) == 0

    own_kafka.kill()
    with pytest.raises(KafkaException):
        topics.admin.list_topics(topic, timeout=1)
    own_kafka.resume()

    assert read_all(own_kafka.address, topic) == [b"before"]


async def test_a_killed_database_comes_back_with_what_it_committed(own_postgres: Postgres) -> None:
    connection = await asyncpg.connect(own_postgres.dsn)
    await connection.execute("create table kept as select 7 as n")
    own_postgres.kill()
    connection.terminate()
    own_postgres.resume()

    connection = await asyncpg.connect(own_postgres.dsn)
    assert await connection.fetchval("select n from kept") == 7
    await connection.close()


async def test_the_shared_database_answers(postgres: str) -> None:
    connection = await asyncpg.connect(postgres)
    assert await connection.fetchval("select 1") == 1
    await connection.close()


def read_all(bootstrap: str, topic: str) -> list[bytes]:
    """The committed values of partition 0."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "enable.partition.eof": True, "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values = []
    try:
        while (message := consumer.poll(30)) is not None:
            if (error := message.error()) is None:
                values.append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                break
    finally:
        consumer.close()
    return values
