"""Asking the workers of a role for something, and what they answer. For commands: it blocks."""

from __future__ import annotations

import getpass
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.control import Audit, Control, control_key, decode_audit, encode_control
from schemas.errors import BadRecord, BrokerError, ConfigError
from streams.broker import cluster_now, confluent_config
from streams.control_topic import PARTITION
from streams.groups import Groups
from streams.orders import Orders
from streams.reading import TopicReader
from streams.settings import Settings
from streams.topics import Topics

_REQUEST_S = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, and who answered in time; `members` is how many workers the group had."""

    control: Control
    members: int
    answers: tuple[Audit, ...]

    @property
    def silent(self) -> int:
        """How many have not answered."""
        return max(0, (1 if self.control.worker else self.members) - len(self.answers))

    @property
    def is_done(self) -> bool:
        """Whether everybody has answered, with ok."""
        return not self.silent and all(answer.result.status == "ok" for answer in self.answers)


def who() -> str:
    """The one before the keyboard: USER@HOST."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def ask(settings: Settings, control: Control, wait_s: float) -> Asked:
    """Publish an action, and wait for the answers of all workers of its role that live.

    Raises `BrokerError` where the topics are not there or the broker does not take it, `ConfigError` where
    there is no such partition.
    """
    topics = Topics(settings.topic_prefix)
    seen = cluster_now(settings).topics
    if missing := [name for name in (topics.control, topics.audit) if name not in seen]:
        raise BrokerError(
            f"broker {settings.broker} lacks topic {' and '.join(missing)}",
            hint="`tidegate topics apply` creates it; workers find it within half a minute",
        )
    count = len(seen[topics.bars].partitions) if topics.bars in seen else None
    if control.partition is not None and count is not None and control.partition >= count:
        raise ConfigError(f"there is no partition {control.partition}: they are 0 to {count - 1}")
    members = len(Groups(settings).group(f"{settings.group}-{control.role}").members)
    wanted = 1 if control.worker else members
    consumer = _at_the_end(settings, topics.audit)
    try:
        _publish(settings, topics.control, control)
        return Asked(control, members, tuple(_answers(consumer, control, wanted, wait_s)))
    finally:
        consumer.close()


def new_control(action: str, role: str, partition: int | None, worker: str | None) -> Control:
    """An action of whoever runs this process, now. Raises `BadRecord` for what no worker would read."""
    from schemas.control import decode_control

    made = Control(
        id=uuid.uuid4().hex,
        action=action,  # type: ignore[arg-type]
        role=role,  # type: ignore[arg-type]
        partition=partition,
        worker=worker,
        actor=who(),
        ts=time.time(),
    )
    return decode_control(encode_control(made))


def orders(settings: Settings) -> Orders | None:
    """What operators have paused; None where there is no such topic."""
    from schemas.control import decode_control

    topic = Topics(settings.topic_prefix).control
    if topic not in cluster_now(settings).topics:
        return None
    found = Orders()
    with TopicReader(settings, topic) as reader:
        for message in reader.read([PARTITION]):
            try:
                found.take(decode_control(message.value()), message.offset())
            except BadRecord:  # workers tell of these
                continue
    return found


def audits(settings: Settings, last: int) -> list[Audit]:
    """The last answers, oldest first. Raises `BrokerError` where there is no such topic."""
    found = []
    with TopicReader(settings, Topics(settings.topic_prefix).audit) as reader:
        for message in reader.read(reader.partitions, last=last):
            try:
                found.append(decode_audit(message.value()))
            except BadRecord:
                continue
    return sorted(found, key=lambda audit: audit.ts)


def _at_the_end(settings: Settings, topic: str) -> Consumer:
    consumer = Consumer(
        {
            **confluent_config(settings),
            "group.id": "tidegate-control",  # librdkafka only wants the name
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 10,
        }
    )
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, PARTITION), timeout=_REQUEST_S)
    consumer.assign([TopicPartition(topic, PARTITION, end)])
    return consumer


def _publish(settings: Settings, topic: str, control: Control) -> None:
    failed: list[KafkaError] = []

    def told(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer(
        {**confluent_config(settings), "acks": "all", "message.timeout.ms": int(_REQUEST_S * 1000)}
    )
    try:
        producer.produce(
            topic, encode_control(control), control_key(control), partition=PARTITION, on_delivery=told
        )
    except KafkaException as exc:
        failed.append(exc.args[0])
    producer.flush(_REQUEST_S + 1)
    if failed:
        raise BrokerError(
            f"{topic}: the action was not taken: {failed[0].str()}",
            hint="may the user write to this topic? nobody obeys what is not there",
        )


def _answers(consumer: Consumer, control: Control, wanted: int, wait_s: float) -> Iterator[Audit]:
    heard: set[str] = set()
    deadline = time.monotonic() + wait_s
    while len(heard) < wanted and time.monotonic() < deadline:
        for message in consumer.consume(100, 0.05):
            if message.error() is not None:
                continue
            try:
                audit = decode_audit(message.value())
            except BadRecord:
                continue
            if audit.id == control.id and audit.worker not in heard:
                heard.add(audit.worker)
                yield audit
