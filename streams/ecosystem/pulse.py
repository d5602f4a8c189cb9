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
from dataclasses import asdict

import structlog

from schemas.health import HealthComponent, HealthState
from streams.ecosystem.buses import Bus
from streams.ecosystem.feedback_topic import FeedbackTopic
from streams.ecosystem.pulse_inward import Inward
from streams.ecosystem.pulse_outward import Outward
from streams.ecosystem.pulse_parts import Counts
from streams.ecosystem.pulse_settings import PulseSettings
from streams.ecosystem.pulse_words import Changes
from streams.settings import Settings

log = structlog.get_logger(__name__)


class PulseBridge:
    """One bridge. `bus` is a `RedisBus`, or a `CoreBus` around any bus in this process."""

    def __init__(self, settings: Settings, bus: Bus, pulse: PulseSettings | None = None) -> None:
        self.counts = Counts()
        self._pulse = pulse = pulse or PulseSettings()
        self._bus = bus
        self._topic = FeedbackTopic(settings, pulse.partitions)
        changes = Changes(settings.feedback_ttl / 1e9)
        self._inward = Inward(bus, self._topic, pulse, changes, self.counts, settings.heartbeat / 1e9)
        self._outward = Outward(bus, self._topic, settings, changes, self.counts)
        self._stopping = asyncio.Event()
        self._running = False

    async def run(self) -> None:
        """Bridge until `stop`. Raises `BusAway` or `BrokerError` where one side is not there at the start."""
        try:
            await self._topic.open()
            await self._bus.open()
            await self._inward.recall()
            self._running = True
            log.info(
                "bridge.began", bus=self._bus.name, direction=self._pulse.direction, holding=self._holding()
            )
            async with asyncio.TaskGroup() as group:
                if self._pulse.direction != "out":
                    group.create_task(self._inward.run(self._stopping))
                if self._pulse.direction != "in":
                    group.create_task(self._outward.run(self._stopping))
        except BaseExceptionGroup as failed:  # the first one says why
            raise failed.exceptions[0] from None
        finally:
            self._running = False
            await self._bus.close()
            await self._topic.close()

    def stop(self) -> None:
        """Have `run` finish what it has begun, and return."""
        self._stopping.set()

    @property
    def lag_s(self) -> float:
        """How old the last entry of the bus was when it was read, seconds."""
        return self._inward.lag_s

    def health(self) -> HealthComponent:
        """Degraded while one side is away: nothing is lost, but what stores say is not obeyed."""
        links = (*self._inward.links, self._outward.link)
        state = HealthState.healthy
        if any(link.away for link in links):
            state = HealthState.degraded
        if not self._running:
            state = HealthState.unhealthy
        details = {
            "running": "yes" if self._running else "no",
            **{link.what: link.told() for link in links},
            "holding": ", ".join(f"{who} {level}" for who, level in self._holding().items()) or "nobody",
            **{name: str(count) for name, count in asdict(self.counts).items()},
        }
        return HealthComponent("bridge", state, details)

    def _holding(self) -> dict[str, str]:
        return {who: level.value for who, level in self._inward.holding().items()}
