"""The bridge between core's event bus (Pulse) and Tidegate's feedback topic, in both directions.

    bridge = PulseBridge(load_settings(), RedisBus(pulse))
    await bridge.run()                      # until `stop`, or until it is cancelled

What is promised:

- In: feedback on the bus becomes feedback about each partition (or those that are named), so that a store that
  speaks on the bus pauses partitions. An entry is acknowledged once Kafka has acknowledged what was made of it.
  Of several words of one coordinator that are read together the last one is told.
- The last word of a coordinator that holds the ticks back is repeated; `pulse_words` says for how long. Nothing is
  repeated while the bus is away: as its stores cannot be heard, their pauses end after `feedback_ttl`.
- What cannot be read is put among the bus's dead letters with the reason, and counted.
- Out: changes of the level of Tidegate's stores are told on the bus; who goes silent is told to be `ok`.
- Nothing goes round: what came from the bus has the source `pulse` in Kafka, and is not told on the bus; what came
  from Tidegate has the source `tidegate` on the bus, and is not told in Kafka.
- Either side may go away and come back. At the start both must be there.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass

import structlog
from market_data_core.telemetry import FeedbackEvent

from schemas.errors import BadRecord, BrokerError, BusAway
from schemas.health import HealthComponent, HealthState
from streams.ecosystem.buses import Bus, Entry
from streams.ecosystem.envelopes import decode_envelope, to_feedback, unwrap
from streams.ecosystem.feedback_topic import FeedbackTopic, Said
from streams.ecosystem.links import Link
from streams.ecosystem.pulse_settings import PulseSettings
from streams.ecosystem.pulse_words import PULSE, TIDEGATE, Changes, Order, Word, Words
from streams.flow.subscribe import feedback
from streams.settings import Settings

log = structlog.get_logger(__name__)

_RETRY_S = 0.5
#: Which cluster and topic a store of Tidegate speaks on: another bridge on the same bus may be another one's.
_ORIGIN = "tidegate-origin"


@dataclass(slots=True)
class Counts:
    """What a bridge did since it was made."""

    heard: int = 0
    """Entries of the bus, whatever is in them."""
    told: int = 0
    """Words of coordinators that Kafka has, each about all partitions."""
    repeated: int = 0
    """The same words again, as heartbeats."""
    refused: int = 0
    """Entries that could not be read."""
    published: int = 0
    """Words of Tidegate's stores that the bus has."""


class PulseBridge:
    """One bridge. `bus` is a `RedisBus`, or a `CoreBus` around any bus in this process."""

    def __init__(self, settings: Settings, bus: Bus, pulse: PulseSettings | None = None) -> None:
        self.counts = Counts()
        self._settings = settings
        self._bus = bus
        self._pulse = pulse or PulseSettings()
        self._topic = FeedbackTopic(settings, self._pulse.partitions)
        self._words = Words(self._pulse.hold_s)
        self._changes = Changes(settings.feedback_ttl / 1e9)
        self._beat_s = settings.heartbeat / 1e9
        self._links = {"bus": Link("bus"), "kafka": Link("kafka")}
        self._unacked: dict[str, None] = {}
        self._seen: Order = ()
        self._ts = 0.0
        self._stopping = asyncio.Event()
        self._running = False

    async def run(self) -> None:
        """Bridge until `stop`. Raises `BusAway` or `BrokerError` where one side is not there at the start."""
        try:
            await self._topic.open()
            await self._bus.open()
            recalled = await self._bus.recall()
            self._take(recalled)
            self._seen = max((self._seen, *(entry.order for entry in recalled)))
            self._running = True
            log.info(
                "bridge.began", bus=self._bus.name, direction=self._pulse.direction, holding=self._holding()
            )
            async with asyncio.TaskGroup() as group:
                if self._pulse.direction != "out":
                    group.create_task(self._inward())
                if self._pulse.direction != "in":
                    listening = group.create_task(self._listen())
                    publishing = group.create_task(self._outward())
                    publishing.add_done_callback(lambda _: listening.cancel())
        except BaseExceptionGroup as group_exc:  # of what failed, the first thing says why
            raise group_exc.exceptions[0] from None
        finally:
            self._running = False
            await self._bus.close()
            await self._topic.close()

    def stop(self) -> None:
        """Have `run` finish what it has begun, and return."""
        self._stopping.set()

    def health(self) -> HealthComponent:
        """Degraded while one side is away: nothing is lost, but what stores say is not obeyed."""
        state = HealthState.healthy
        if any(link.away for link in self._links.values()):
            state = HealthState.degraded
        if not self._running:
            state = HealthState.unhealthy
        details = {
            "running": "yes" if self._running else "no",
            **{name: link.told() for name, link in self._links.items()},
            "holding": ", ".join(f"{who} {level}" for who, level in self._holding().items()) or "nobody",
            **{name: str(count) for name, count in asdict(self.counts).items()},
        }
        return HealthComponent("bridge", state, details)

    def _holding(self) -> dict[str, str]:
        return {who: level.value for who, level in self._words.holding(time.time()).items()}

    # From the bus to Kafka.

    async def _inward(self) -> None:
        beat = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            try:
                # What waits for Kafka is told before more is read: it stays on the bus meanwhile.
                if not self._waiting():
                    await self._hear(await self._bus.read(max(0.0, beat - now)))
                self._links["bus"].answered()
                beating = time.monotonic() >= beat
                if beating:
                    beat = time.monotonic() + self._beat_s
                if await self._tell(beating=beating):
                    await self._ack()
            except BusAway as exc:
                self._links["bus"].lost(exc)
                await self._pause()

    def _waiting(self) -> bool:
        return bool(self._links["kafka"].away and (self._unacked or self._words.due(time.time())))

    async def _hear(self, entries: list[Entry]) -> None:
        # What is new to us may be given to us later, and is there twice then.
        self.counts.heard += sum(entry.order > self._seen for entry in entries)
        self._seen = max((self._seen, *(entry.order for entry in entries)))
        for entry, reason in self._take(entries):
            self.counts.refused += 1
            log.warning("bridge.refused", entry=entry.id, reason=reason)
            await self._bus.refuse(entry, reason)

    def _take(self, entries: list[Entry]) -> list[tuple[Entry, str]]:
        """Take note of entries; gives those of ours that cannot be read, with the reason."""
        refused = []
        now = time.time()
        for entry in entries:
            value = entry.value
            try:
                envelope = decode_envelope(value) if isinstance(value, bytes) else unwrap(value)
                event, headers = envelope.payload, envelope.meta.headers
                to_feedback(event, 0)  # raises where Kafka could not have it
            except BadRecord as exc:
                if entry.mine:
                    refused.append((entry, str(exc)))
                continue
            if entry.mine:
                self._unacked[entry.id] = None
            if event.source == TIDEGATE:
                if headers.get(_ORIGIN) == self._origin:
                    self._changes.told(event)
            elif self._pulse.direction != "out":
                told = {**headers, "pulse-id": entry.id, "pulse-source": event.source}
                self._words.hear(Word(event, told, entry.order, now - entry.age_s), now)
        return refused

    async def _tell(self, *, beating: bool) -> bool:
        """Tell Kafka what is due; False where Kafka did not take it."""
        now = time.time()
        for word in self._words.ended(now):
            log.warning(
                "bridge.hold_ended",
                coordinator=word.event.coordinator_id,
                level=word.event.level.value,
                said_s_ago=round(now - word.at),
                consequence="it is not repeated any more, and holds nothing back until it speaks again",
            )
        words = self._words.due(now) if beating else self._words.untold(now)
        if not words and not self._links["kafka"].away:
            return True
        try:
            if self._links["kafka"].away:
                await self._topic.open()
            await self._topic.say(self._about_partitions(words, now))
        except BrokerError as exc:
            self._links["kafka"].lost(exc)
            await self._pause()
            return False
        self._links["kafka"].answered()
        for word in words:
            if word.told:
                self.counts.repeated += 1
            else:
                self.counts.told += 1
                self._log(word.event, word.headers)
            word.told = True
        return True

    def _about_partitions(self, words: list[Word], now: float) -> list[Said]:
        return [
            Said(to_feedback(word.event, partition, source=PULSE, ts=self._later(now)), word.headers)
            for word in words
            for partition in self._topic.partitions
        ]

    def _later(self, now: float) -> float:
        # The word that is told later counts, also where the clock was set back. There is no epoch to help, so
        # that two bridges, or one that is started again, do not outvote each other.
        self._ts = max(now, math.nextafter(self._ts, math.inf))
        return self._ts

    async def _ack(self) -> None:
        if self._unacked:
            await self._bus.ack(list(self._unacked))
            self._unacked.clear()

    # From Kafka to the bus.

    async def _listen(self) -> None:
        async with aclosing(feedback(self._settings)) as events:
            async for event in events:
                if event.source != PULSE:
                    self._changes.hear(event, time.time())

    async def _outward(self) -> None:
        while not self._stopping.is_set():
            try:
                for event, reason in self._changes.due(time.time()):
                    headers = {
                        _ORIGIN: self._origin,
                        "utilization": f"{event.queue_size / event.capacity:.6f}",
                    }
                    if reason is not None:
                        headers["reason"] = reason
                    await self._bus.publish(event, headers)
                    self._links["bus"].answered()
                    self._changes.told(event)
                    self.counts.published += 1
                    self._log(event, headers)
            except BusAway as exc:
                self._links["bus"].lost(exc)
            await self._pause()

    @property
    def _origin(self) -> str:
        return f"{self._topic.cluster_id}/{self._topic.topic}"

    @staticmethod
    def _log(event: FeedbackEvent, headers: Mapping[str, str]) -> None:
        log.info(
            "bridge.told",
            coordinator=event.coordinator_id,
            pressure=event.level.value,
            queue=event.queue_size,
            capacity=event.capacity,
            source=event.source,
            reason=headers.get("reason"),
        )

    async def _pause(self) -> None:
        """Wait a moment, but not beyond `stop`."""
        try:
            async with asyncio.timeout(_RETRY_S):
                await self._stopping.wait()
        except TimeoutError:
            pass
