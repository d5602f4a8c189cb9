"""Speaking for a coordinator that cannot: an operator's `ok`."""

from __future__ import annotations

import time

from market_data_core.telemetry import BackpressureLevel, FeedbackEvent

from schemas.errors import BadRecord, ConfigError
from streams.ecosystem.envelopes import decode_envelope
from streams.ecosystem.pulse_settings import PulseSettings
from streams.ecosystem.pulse_words import TIDEGATE
from streams.ecosystem.redis_bus import RECALLED, RedisBus

_SHOWN = 10


async def release(pulse: PulseSettings, coordinator_id: str) -> str:
    """Publish `ok` in a coordinator's name; gives its last level. Raises ConfigError where it never spoke."""
    bus = RedisBus(pulse)
    try:
        await bus.open()
        last: dict[str, FeedbackEvent] = {}
        for entry in await bus.recall():
            try:
                event = decode_envelope(entry.value).payload if isinstance(entry.value, bytes) else None
            except BadRecord:
                continue
            if event is not None and event.source != TIDEGATE:
                last[event.coordinator_id] = event
        known = last.get(coordinator_id)
        if known is None:
            names = ", ".join(sorted(last)[:_SHOWN]) or "nobody"
            raise ConfigError(
                f"{coordinator_id} is not among the last {RECALLED:,} entries of {bus.name}",
                hint=f"who spoke there: {names}",
            )
        said = {"level": BackpressureLevel.ok, "queue_size": 0, "ts": time.time()}
        await bus.publish(known.model_copy(update=said), {"reason": "released by an operator"})
        return known.level.value
    finally:
        await bus.close()
