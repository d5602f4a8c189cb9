"""The changelog of open windows: rows of a compacted topic, keyed by tick topic and row name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.types import TP

from schemas.errors import BrokerError
from streams.broker import confluent_config
from streams.settings import Settings

log = structlog.get_logger(__name__)

#: How often a long recovery says how far it is.
PROGRESS_S = 5.0

#: Errors that librdkafka tells and mends by itself, if the broker comes back in time.
_PASSING = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE}
)


def row_key(tp: TP, name: str) -> bytes:
    """The record key of a row: a topic's name cannot hold the separator."""
    return f"{tp.topic}|{name}".encode()


async def read_rows(
    settings: Settings, topic: str, ticks: Collection[TP], timeout_s: float = 60.0
) -> dict[TP, dict[str, bytes]]:
    """The latest rows of tick partitions, each read from the same partition number of the changelog.

    Raises `BrokerError` when the broker gives nothing for `timeout_s`.
    """
    return await asyncio.to_thread(_read, settings, topic, ticks, timeout_s) if ticks else {}


async def log_ids(settings: Settings, topics: Iterable[str], timeout_s: float = 30.0) -> dict[str, str]:
    """What the broker calls these topics: a topic that is deleted and made anew gets another id.

    Brokers that give no ids give the empty string. Raises `BrokerError`.
    """
    return await asyncio.to_thread(_log_ids, settings, sorted(topics), timeout_s)


def _log_ids(settings: Settings, topics: list[str], timeout_s: float) -> dict[str, str]:
    admin = AdminClient(confluent_config(settings))
    asked = admin.describe_topics(TopicCollection(topics), request_timeout=timeout_s)
    try:
        return {name: str(answer.result(timeout_s).topic_id or "") for name, answer in asked.items()}
    except (KafkaException, TimeoutError) as exc:
        raise BrokerError(f"the broker does not describe {', '.join(topics)}: {exc}") from None
    finally:
        del admin  # its threads must end before the process does


def _read(
    settings: Settings, topic: str, ticks: Collection[TP], timeout_s: float
) -> dict[TP, dict[str, bytes]]:
    consumer = Consumer(
        {
            **confluent_config(settings),
            # No group is joined and nothing committed: librdkafka only wants the name.
            "group.id": "tidegate-recovery",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
        }
    )
    states: dict[TP, dict[str, bytes]] = {tp: {} for tp in ticks}
    pending = {tp.partition for tp in ticks}
    read = 0
    heard = said = time.monotonic()
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in pending])
        while pending:
            for message in consumer.consume(10_000, 0.05):
                error = message.error()
                if error is None:
                    heard = time.monotonic()
                    read += 1
                    _apply(states, message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    pending.discard(message.partition())
                elif error.code() not in _PASSING:
                    raise BrokerError(f"{topic}[{message.partition()}]: state cannot be read: {error.str()}")
            now = time.monotonic()
            if now - said > PROGRESS_S:
                said = now
                log.info("state.recovering", topic=topic, rows=read, partitions_left=sorted(pending))
            if now - heard > timeout_s:
                raise BrokerError(f"{topic}{sorted(pending)}: no state came for {timeout_s:.0f} s")
        return states
    finally:
        consumer.close()


def _apply(states: dict[TP, dict[str, bytes]], message: Message) -> None:
    tick_topic, _, name = (message.key() or b"").decode("utf-8", "replace").partition("|")
    rows = states.get(TP(tick_topic, message.partition()))
    if rows is None:
        return  # of another tick topic, or of another partition number's owner
    value = message.value()
    if value is None:
        rows.pop(name, None)
    else:
        rows[name] = value
