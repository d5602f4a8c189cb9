"""From the bus to Kafka: what stores say there is feedback about partitions, repeated while it holds."""

from __future__ import annotations

import asyncio
import math
import time

import structlog

from schemas.errors import BadRecord, BrokerError, BusAway
from schemas.feedback import Level
from streams.ecosystem.buses import Bus, Entry
from streams.ecosystem.envelopes import decode_envelope, to_feedback, unwrap
from streams.ecosystem.feedback_topic import FeedbackTopic, Said
from streams.ecosystem.links import Link
from streams.ecosystem.pulse_parts import ORIGIN, Counts, log_told, moment, origin
from streams.ecosystem.pulse_settings import PulseSettings
from streams.ecosystem.pulse_words import PULSE, TIDEGATE, Changes, Order, Word, Words

log = structlog.get_logger(__name__)

#: Of a flood of garbage one a second is told; all of it is counted.
_COMPLAIN_S = 1.0


class Inward:
    """Reads the bus. What the bus was told of Tidegate's own stores goes to `changes`."""

    def __init__(
        self,
        bus: Bus,
        topic: FeedbackTopic,
        pulse: PulseSettings,
        changes: Changes,
        counts: Counts,
        beat_s: float,
    ) -> None:
        self.links = (Link("bus"), Link("kafka"))
        #: How old the last entry was when it was read, seconds.
        self.lag_s = 0.0
        self._reading, self._telling = self.links
        self._bus = bus
        self._topic = topic
        self._obeys = pulse.direction != "out"
        self._changes = changes
        self._counts = counts
        self._words = Words(pulse.hold_s)
        self._beat_s = beat_s
        self._unacked: dict[str, None] = {}
        self._seen: Order = ()
        self._ts = 0.0
        self._complained_at = -math.inf

    def holding(self) -> dict[str, Level]:
        """Who holds the ticks back."""
        return self._words.holding(time.time())

    async def recall(self) -> None:
        """Take note of what was said before. Raises `BusAway`."""
        self._take(await self._bus.recall())
        self._counts.heard = self._counts.passed_over = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Until the end."""
        beat = time.monotonic()
        while not stopping.is_set():
            try:
                # What waits for Kafka is told before more is read: it stays on the bus meanwhile.
                if not self._waiting():
                    await self._hear(await self._bus.read(max(0.0, beat - time.monotonic())))
                    self._reading.answered()
                beating = time.monotonic() >= beat
                if beating:
                    beat = time.monotonic() + self._beat_s
                if await self._tell(repeat=beating):
                    await self._ack()
                else:
                    await moment(stopping)
            except BusAway as exc:
                self._reading.lost(exc)
                await moment(stopping)

    def _waiting(self) -> bool:
        return self._telling.away and bool(self._unacked or self._words.due(time.time()))

    async def _hear(self, entries: list[Entry]) -> None:
        for entry, reason in self._take(entries):
            if (now := time.monotonic()) - self._complained_at > _COMPLAIN_S:
                self._complained_at = now
                log.warning("bridge.refused", entry=entry.id, reason=reason, before=self._counts.refused)
            await self._bus.refuse(entry, reason)
            self._counts.heard += 1
            self._counts.refused += 1

    def _take(self, entries: list[Entry]) -> list[tuple[Entry, str]]:
        """Take note of entries; gives those of ours that cannot be read, with the reason."""
        refused = []
        for entry in entries:
            # What was seen by all may be given to us later, and comes twice then.
            first = entry.order > self._seen
            if first:
                self._seen, self.lag_s = entry.order, entry.age_s
            try:
                new = self._understood(entry)
            except BadRecord as exc:
                if entry.mine:
                    refused.append((entry, str(exc)))
                continue
            if entry.mine:
                self._unacked[entry.id] = None
            self._counts.heard += first
            self._counts.passed_over += first and not new
        return refused

    def _understood(self, entry: Entry) -> bool:
        """Whether there is something new in it, for Kafka. Raises BadRecord."""
        value = entry.value
        envelope = decode_envelope(value) if isinstance(value, bytes) else unwrap(value)
        event, headers = envelope.payload, envelope.meta.headers
        to_feedback(event, 0)  # raises where Kafka could not have it
        if event.source == TIDEGATE:
            if headers.get(ORIGIN) == origin(self._topic):
                self._changes.told(event)
            return False
        headers = {**headers, "pulse-id": entry.id, "pulse-source": event.source}
        now = time.time()
        return self._obeys and self._words.hear(Word(event, headers, entry.order, now - entry.age_s), now)

    async def _tell(self, *, repeat: bool) -> bool:
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
        away = self._telling.away
        words = self._words.due(now) if repeat or away else self._words.untold(now)
        if not words and not away:
            return True
        try:
            if away:
                await self._topic.open()
            await self._topic.say(self._about_partitions(words, now))
        except BrokerError as exc:
            self._telling.lost(exc)
            return False
        self._telling.answered()
        for word in words:
            if word.told:
                self._counts.repeated += 1
            else:
                self._counts.told += 1
                log_told(word.event, word.headers)
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
