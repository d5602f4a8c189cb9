"""From feedback events to rate adjustments, for programs that slow a provider of their own down.

Workers need none: they obey the feedback topic themselves. Needs the extra ``core``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from schemas.errors import ConfigError
from schemas.feedback import Feedback, Level
from streams.ecosystem.core import BackpressureLevel, FeedbackEvent, RateAdjustment
from streams.ecosystem.envelopes import to_feedback
from streams.flow.controller import Decision, RateController

log = logging.getLogger(__name__)

SCALES: Mapping[Level, float] = {Level.ok: 1.0, Level.soft: 0.5, Level.hard: 0.0}


class Applies(Protocol):
    """Core's `RateController`."""

    async def apply(self, adjustment: RateAdjustment) -> None:
        """Make it so."""


class FeedbackHandler:
    """Applies to `rate` what the coordinators ask for: the worst of their latest words, at each event.

    As market-data-pipeline's, but for this: of several coordinators the worst decides, not who spoke last, and an
    event that is older than what its coordinator said since changes nothing. `policy` gives a scale for each level,
    by core's `BackpressureLevel` or its name; a level that is left out has its usual scale.

    With `ttl_s` a coordinator that has been silent for so long does not count any more, so that no pause outlives
    its store: right where events are repeated, as on a `FeedbackBus`. Without, its last word holds for ever, as it
    must where each is said once, such as on the store's own in-process bus.
    """

    def __init__(
        self,
        rate: Applies,
        provider: str,
        policy: Mapping[BackpressureLevel, float] | Mapping[str, float] | None = None,
        *,
        ttl_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rate_controller = rate
        self.provider = provider
        self.policy: dict[BackpressureLevel, float] = {
            BackpressureLevel(level.value): scale for level, scale in _scales(policy).items()
        }
        self._ttl_s = math.inf if ttl_s is None else ttl_s
        self._clock = clock
        self._controller = RateController(_Scales(_scales(policy)), self._ttl_s)
        self._applying = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def handle(self, event: FeedbackEvent) -> None:
        """Take an event and apply what follows from all of them. Raises BadRecord, or what `rate` raises."""
        self._controller.observe(to_feedback(event, 0), self._clock())
        await self.refresh()

    async def refresh(self) -> None:
        """Apply what holds now. With `ttl_s` it is called by itself when somebody has gone silent."""
        async with self._applying:
            now = self._clock()
            for gone in self._controller.expired(now):
                log.warning("%s is silent, and does not count any more", gone.coordinator_id)
            decision = self._controller.decide(0, now)
            self._wake_later(decision)
            await self.rate_controller.apply(
                RateAdjustment(
                    provider=self.provider,
                    scale=decision.scale,
                    reason=BackpressureLevel(decision.reason.value),
                    ts=now,
                )
            )

    def _wake_later(self, decision: Decision) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if decision.scale < 1 and self._ttl_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(self._ttl_s + 0.01, self._wake)

    def _wake(self) -> None:
        self._refreshing = asyncio.create_task(self._refresh_or_say_why_not())

    async def _refresh_or_say_why_not(self) -> None:
        try:
            await self.refresh()
        except Exception:  # of the user's rate controller; nobody else awaits this
            log.exception("the end of a pause of %s could not be applied; trying again", self.provider)
            self._timer = asyncio.get_running_loop().call_later(1.0, self._wake)

    async def close(self) -> None:
        """End what waits for silence. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])


class _Scales:
    """A policy of one scale a level."""

    def __init__(self, scales: Mapping[Level, float]) -> None:
        self._scales = scales

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        return self._scales[feedback.level]


def _scales(policy: Mapping[BackpressureLevel, float] | Mapping[str, float] | None) -> dict[Level, float]:
    scales = dict(SCALES)
    for level, scale in (policy or {}).items():
        name = level.value if isinstance(level, BackpressureLevel) else level
        if name not in Level.__members__:
            raise ConfigError(f"policy: level {name!r} is not known", hint=f"one of {', '.join(Level)}")
        if not 0 <= scale <= 1:
            raise ConfigError(
                f"policy: the scale of {name} is {scale}", hint="a scale is a number from 0 to 1"
            )
        scales[Level(name)] = float(scale)
    return scales
