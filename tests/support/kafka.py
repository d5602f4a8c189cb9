"""Apache Kafka in a container, and topics of a test's own on it."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from support.containers import HOST, PinnedPortContainer

IMAGE = os.environ.get("TIDEGATE_KAFKA_IMAGE", "apache/kafka:4.4.0")

# What one node needs to be a whole cluster, and what makes tests wait less.
SETTINGS = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "EXTERNAL",
    "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_LOG_RETENTION_HOURS": "168",
    # Most brokers here live for minutes: code that is compiled twice never pays.
    "KAFKA_HEAP_OPTS": "-Xms512m -Xmx1g -XX:TieredStopAtLevel=1",
}


class Kafka(PinnedPortContainer):
    """One KRaft node that tests may stop, kill and start again; its log and its port survive that."""

    def __init__(
        self,
        image: str = IMAGE,
        listeners: Mapping[str, str] | None = None,
        advertised: Mapping[str, int] | None = None,
        **settings: str,
    ) -> None:
        super().__init__(image)
        protocols = {"EXTERNAL": "PLAINTEXT", **(listeners or {})}
        ports = {name: self.publish_another() for name in listeners or {}}
        ports["EXTERNAL"] = self.host_port
        #: Where clients find each listener, by its name, as HOST:PORT.
        self.addresses = {name: f"{HOST}:{port}" for name, port in ports.items()}
        told = {name: f"{HOST}:{port}" for name, port in {**ports, **(advertised or {})}.items()}
        self.with_envs(
            **SETTINGS,
            KAFKA_LISTENERS=_joined(ports, "{}://0.0.0.0:{}") + ",CONTROLLER://localhost:9093",
            KAFKA_ADVERTISED_LISTENERS=_joined(told, "{}://{}"),
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=_joined(protocols, "{}:{}") + ",CONTROLLER:PLAINTEXT",
        )
        self.with_envs(**settings)

    @property
    def version(self) -> str:
        """The version that the broker logged."""
        logged = re.findall(r"Kafka version: (\S+)", self.get_logs()[0].decode(errors="replace"))
        return logged[-1] if logged else "of unknown version"

    def wait_ready(self, deadline_s: float = 120) -> None:
        """Return once the broker answers a client, and every group has a coordinator."""
        self.wait_until(lambda: answers(self.address), deadline_s)
        # The first group on a new broker makes the topic of offsets; until then, groups are refused.
        self.wait_until(lambda: coordinates(self.address), deadline_s)

    def kill(self) -> None:
        """Stop the broker as a power cut would."""
        self.get_wrapped_container().kill()

    def halt(self) -> None:
        """Stop the broker in order."""
        self.get_wrapped_container().stop(timeout=30)

    def resume(self) -> None:
        """Start a stopped broker on the log that it left."""
        self.get_wrapped_container().start()
        self.wait_ready()


def _joined(items: Mapping[str, object], form: str) -> str:
    return ",".join(form.format(name, value) for name, value in items.items())


@contextmanager
def running_kafka(
    listeners: Mapping[str, str] | None = None, advertised: Mapping[str, int] | None = None, **settings: str
) -> Iterator[Kafka]:
    """A broker of one's own, removed afterwards; `listeners` are more of them: protocols by name.

    `advertised` are the loopback ports that clients of a listener are sent to, where that is a proxy's.
    """
    with Kafka(listeners=listeners, advertised=advertised, **settings) as broker:
        broker.wait_ready()
        yield broker


#: A broker to be killed does not wait 9 s for its own old session to end when it comes back.
MORTAL = {"KAFKA_BROKER_SESSION_TIMEOUT_MS": "3000", "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500"}


def running_mortal_kafka() -> AbstractContextManager[Kafka]:
    """A broker to be killed and started again."""
    return running_kafka(**MORTAL)


def answers(bootstrap: str, timeout_s: float = 2) -> bool:
    """Whether a broker gives its metadata to a client."""
    try:
        return bool(_admin(bootstrap).list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def coordinates(bootstrap: str) -> bool:
    """Whether the group coordinators are at work, on every partition of the topic of offsets."""
    admin = _admin(bootstrap)  # a client that nobody holds leaves its futures open
    described = admin.describe_consumer_groups([f"warm-{n}" for n in range(32)], request_timeout=5)
    return all(_answered(future) for future in described.values())


def _answered(future: Future[object]) -> bool:
    try:
        future.result(10)
    except KafkaException as exc:
        return bool(exc.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND)
    return True


class TestTopics:
    """Topics under a prefix that no other test has. They are left behind: the broker goes, or is yours."""

    __test__ = False

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"t{uuid.uuid4().hex[:10]}."
        self.admin = _admin(bootstrap)

    def __call__(self, name: str = "ticks.v1", partitions: int = 4, **config: str | int) -> str:
        """Create a topic and return its full name once every partition has a leader.

        Settings are spelled with underscores: ``retention_ms=1000``.
        """
        topic = self.prefix + name
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=settings)
        self.admin.create_topics([new], operation_timeout=30)[topic].result(30)
        end = time.monotonic() + 30
        while not self._led(topic, partitions):
            if time.monotonic() > end:
                raise TimeoutError(f"{topic}: not every partition has a leader after 30 s")
            time.sleep(0.02)
        return topic

    def _led(self, topic: str, partitions: int) -> bool:
        seen = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        return len(seen) == partitions and all(p.leader >= 0 for p in seen.values())


def _admin(bootstrap: str) -> AdminClient:
    # Silent: a broker that is not there yet is no news while waiting for it.
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 10_000})


def records(
    bootstrap: str, topic: str, partition: int = 0, isolation: str = "read_committed"
) -> list[Message]:
    """Every record of a partition, in order."""
    if isolation == "read_committed":
        wait_for_markers(bootstrap, topic, partition)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    records: list[Message] = []
    try:
        while True:
            # It returns when it has so many or the time is over, whatever comes last.
            for message in consumer.consume(1000, 0.02):
                error = message.error()
                if error is None:
                    records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    return records
                else:
                    raise AssertionError(error.str())
    finally:
        consumer.close()


def wait_for_markers(bootstrap: str, topic: str, partition: int = 0, timeout_s: float = 2) -> None:
    """Return once no transaction is open on a partition; at the latest after `timeout_s`, for some stay open.

    A commit is answered when the coordinator has noted it: the markers, and with them the records, come later.
    """
    admin = _admin(bootstrap)
    ask = {TopicPartition(topic, partition): OffsetSpec.latest()}
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        told = [admin.list_offsets(ask, isolation_level=level) for level in IsolationLevel]
        stable, last = (offset.result(10).offset for futures in told for offset in futures.values())
        if stable == last:
            return
        time.sleep(0.02)
