"""Rate controllers as market-data-core has them: applying an adjustment slows the partitions of Tidegate's workers.

    async with KafkaRateController("kafka-1:9092") as rate:
        await rate.apply(RateAdjustment(provider="ibkr", scale=0.7, reason=BackpressureLevel.soft, ts=time.time()))

Needs the extra ``core``.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from types import TracebackType
from typing import Protocol, Self

from schemas.errors import BadRecord
from schemas.feedback import Feedback, Level
from schemas.health import HealthComponent
from streams.ecosystem.contracts import to_rate
from streams.ecosystem.core import BackpressureLevel, RateAdjustment
from streams.ecosystem.voice import Voice
from streams.settings import Settings, load_settings


class KafkaRateController:
    """Core's `RateController`, for workers on Kafka: what it applies is one more voice on the feedback topic.

    The scale is what the tick partitions may consume, 0 to 1, whatever `policy` the workers have; where a store
    asks for less, less it is. It holds until another one is applied for this provider, or `close`; if the process
    dies, for `feedback_ttl` more. `provider` may be of any name: each is a voice of its own, and the lowest holds.

    `broker` is HOST:PORT, or whole settings; `partitions` are all, unless some are given. A broker that cannot be
    reached is a `BrokerError`; the adjustment is repeated, and holds as soon as it can be.
    """

    def __init__(
        self,
        broker: str | Settings,
        *,
        partitions: Collection[int] | None = None,
        repeat_s: float | None = None,
    ) -> None:
        settings = load_settings(broker=broker) if isinstance(broker, str) else broker
        self._voice = Voice(settings, partitions, repeat_s)
        self._levels: dict[str, Level] = {}

    async def apply(self, adjustment: RateAdjustment) -> None:
        """Return when the broker has it; workers obey at their next fetch. Raises BadRecord, BrokerError."""
        rate = to_rate(adjustment)
        await self._ask(rate.provider, rate.scale, rate.reason, rate.ts)

    async def set_global_pressure(self, provider: str, level: str) -> None:
        """The reason of the next scale; with `set_budget_scale` what pipeline's RateCoordinator is asked for."""
        try:
            self._levels[provider] = Level(level)
        except ValueError:
            raise BadRecord(f"level {level!r} is not known", hint=f"one of {', '.join(Level)}") from None

    async def set_budget_scale(self, provider: str, scale: float) -> None:
        """Apply a scale from 0 to 1; the reason is what `set_global_pressure` said last."""
        reason = BackpressureLevel(self._levels.get(provider, Level.ok).value)
        await self.apply(
            RateAdjustment.model_construct(provider=provider, scale=scale, reason=reason, ts=time.time())
        )

    async def _ask(self, provider: str, scale: float, reason: Level, ts: float) -> None:
        await self._voice.say(
            Feedback(
                coordinator_id=f"rate:{provider}",
                queue_size=0,
                capacity=1,
                level=reason,
                source="rate",
                ts=ts,
                partition=0,
                epoch=0,
                scale=scale,
            )
        )

    def health(self) -> HealthComponent:
        """Whether the broker has what was applied last."""
        return self._voice.health()

    async def close(self) -> None:
        """Let go: the scale holds for `feedback_ttl` more. May be repeated."""
        await self._voice.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class Coordinator(Protocol):
    """What market-data-pipeline's `RateCoordinator` is asked for. `KafkaRateController` has it, too."""

    async def set_global_pressure(self, provider: str, level: str) -> None:
        """Note the level."""

    async def set_budget_scale(self, provider: str, scale: float) -> None:
        """Make it so."""


class RateCoordinatorAdapter:
    """Core's `RateController` around a coordinator with market-data-pipeline's two methods."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    async def apply(self, adjustment: RateAdjustment) -> None:
        """Raises BadRecord before either is called, or what they raise."""
        rate = to_rate(adjustment)
        await self.coordinator.set_global_pressure(rate.provider, rate.reason.value)
        await self.coordinator.set_budget_scale(rate.provider, rate.scale)
