"""Pressure that no store tells of: bars that nobody reads, and ticks that wait too long behind a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.errors import BrokerError
from schemas.feedback import Feedback, Level
from streams.admin import TopicAdmin
from streams.broker import confluent_config
from streams.flow.pressure import next_level
from streams.flow.retention import Backlog, Retention
from streams.flow.throttle import Throttle
from streams.groups import Groups, Place, lag_of
from streams.settings import Settings
from streams.topics import Topics

log = structlog.get_logger(__name__)

LOOK_S = 5.0
_SETTINGS_S = 60.0
_READ_S = 2.0

#: What is used of a topic's retention when it is said how long waiting ticks still have.
_ANNOUNCED = (0.5, 0.8, 0.95)


class LagWatch:
    """Tells the throttle how much of its retention the oldest bar has used that GROUP-store has not read.

    As feedback of a coordinator of its own, by the thresholds of the store's queue: so a store that is elsewhere,
    or dead, slows the ticks down before the broker deletes bars unread. A group counts once it has committed
    anything. And it says how long the ticks behind a pause have until they are deleted.
    """

    def __init__(self, settings: Settings, throttle: Throttle, position: Callable[[Place], int]) -> None:
        self._settings = settings
        self._throttle = throttle
        self._position = position
        """The offset of the last tick that was applied; -1 before the first."""
        self._topics = Topics(settings.topic_prefix)
        self._group = f"{settings.group}-store"
        self._epoch = time.time_ns() // 10**6
        self._levels: dict[int, Level] = {}
        self._announced: dict[Place, int] = {}
        self._kept: Mapping[str, Retention] = {}
        self._kept_until = 0.0
        self._failed: str | None = None
        self._groups: Groups | None = None

    @property
    def every_s(self) -> float:
        """How often to look: what it says must not expire meanwhile."""
        return min(LOOK_S, self._settings.feedback_ttl / 1e9 / 2)

    async def look(self) -> None:
        """Look once. Where the broker does not answer it says so, once, and knows nothing."""
        owned, held = sorted(self._throttle.owned), sorted(self._throttle.held)
        try:
            backlogs = await asyncio.to_thread(self._read, owned, held)
        except BrokerError as exc:
            if self._failed != str(exc):
                self._failed = str(exc)
                log.warning("lag.unknown", error=str(exc), hint=exc.hint)
            return
        self._failed = None
        now_ms = time.time_ns() // 10**6
        await self._tell(backlogs, now_ms)
        self._announce(backlogs, now_ms)

    def _read(self, owned: Iterable[int], held: Iterable[int]) -> dict[Place, Backlog]:
        """Blocking: what is unread of the bars, and of the ticks that are held back."""
        self._groups = self._groups or Groups(self._settings)
        bars, ticks = self._topics.bars, [tick.topic for tick in self._settings.ticks]
        if (now := time.monotonic()) >= self._kept_until:
            topics = TopicAdmin(self._settings).read([bars, *ticks])
            self._kept = {name: Retention.of(topic.config) for name, topic in topics.items()}
            self._kept_until = now + _SETTINGS_S
        mortal = {name for name, kept in self._kept.items() if not kept.is_forever}
        positions: dict[Place, int] = {}
        if bars in mortal and self._settings.follow_lag:
            positions |= self._groups.committed(self._group, [(bars, p) for p in owned])
        for place in [(topic, p) for topic in ticks if topic in mortal for p in held]:
            positions[place] = self._position(place) + 1
        bounds = self._groups.bounds(positions)
        unread = {place: at for place, at in positions.items() if at < bounds[place][1]}
        oldest = self._oldest(unread)
        return {
            place: Backlog(*bounds[place], at, *oldest.get(place, (None, 0)))
            for place, at in positions.items()
        }

    def _oldest(self, unread: Mapping[Place, int]) -> dict[Place, tuple[int | None, int]]:
        """Timestamp and size of the first unread record of each partition; none where it is only a mark."""
        if not unread:
            return {}
        consumer = Consumer(
            {
                **confluent_config(self._settings),
                "group.id": "tidegate-lag",  # librdkafka only wants the name
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 1024,
                "fetch.message.max.bytes": 16 << 10,
            }
        )
        found: dict[Place, tuple[int | None, int]] = {}
        try:
            consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in unread.items()])
            deadline = time.monotonic() + _READ_S
            while len(found) < len(unread) and time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.05):
                    place = message.topic(), message.partition()
                    if (error := message.error()) is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            found.setdefault(place, (None, 0))
                        elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                            raise BrokerError(
                                f"{place[0]}[{place[1]}]: cannot be read: {error.str()}",
                                hint="may the user read this topic? without it, unread bars slow nothing down",
                            )
                    elif place not in found:
                        kind, stamp_ms = message.timestamp()
                        size = len(message.value() or b"") + len(message.key() or b"")
                        found[place] = (stamp_ms if kind else None), size
                        consumer.pause([TopicPartition(*place)])
        finally:
            consumer.close()
        return found

    async def _tell(self, backlogs: Mapping[Place, Backlog], now_ms: int) -> None:
        bars, said = self._topics.bars, []
        for (topic, partition), backlog in backlogs.items():
            if topic != bars:
                continue
            used = backlog.used(self._kept[bars], now_ms)
            before = self._levels.get(partition, Level.ok)
            level = self._levels[partition] = next_level(before, used, self._settings.thresholds)
            if level is before is Level.ok:
                continue
            if level is not before:
                left_s = backlog.left_s(self._kept[bars], now_ms)
                (log.info if level is Level.ok else log.warning)(
                    "bars.unread",
                    partition=partition,
                    pressure=level.value,
                    unread=backlog.unread,
                    deleted_in_s=None if left_s is None else round(left_s, 1),
                    group=self._group,
                    hint="its store workers have stopped, or are too slow; what they do not read is deleted",
                )
            said.append(
                Feedback(
                    coordinator_id=lag_of(self._group),
                    queue_size=backlog.unread,
                    capacity=max(1, round(backlog.unread / used)) if used else max(1, backlog.unread),
                    level=level,
                    source="lag",
                    ts=now_ms / 1000,
                    partition=partition,
                    epoch=self._epoch,
                )
            )
        await self._throttle.hear(said)

    def _announce(self, backlogs: Mapping[Place, Backlog], now_ms: int) -> None:
        bars = self._topics.bars
        waiting = {place: backlog for place, backlog in backlogs.items() if place[0] != bars}
        for place in self._announced.keys() - waiting.keys():
            del self._announced[place]
        for place, backlog in waiting.items():
            used = backlog.used(self._kept[place[0]], now_ms)
            step = sum(used >= share for share in _ANNOUNCED)
            if step > self._announced.get(place, 0):
                left_s = backlog.left_s(self._kept[place[0]], now_ms)
                log.warning(
                    "ticks.near_retention",
                    partition=f"{place[0]}[{place[1]}]",
                    unread=backlog.unread,
                    used=round(used, 2),
                    deleted_in_s=None if left_s is None else round(left_s, 1),
                    hint="it is held back: mend the store, or raise the topic's retention.ms or retention.bytes",
                )
            self._announced[place] = step
