"""What of market-data-core is used here; without that package a `ConfigError` names the extra that has it."""

from __future__ import annotations

from streams.extras import need

need("core", "market_data_core", "streams.ecosystem")

from market_data_core import telemetry  # noqa: E402
from market_data_core.events.codecs import JsonCodec  # noqa: E402
from market_data_core.events.envelope import EventEnvelope, EventMeta  # noqa: E402
from market_data_core.telemetry import (  # noqa: E402
    BackpressureLevel,
    FeedbackEvent,
    HealthStatus,
    RateAdjustment,
)

__all__ = [
    "BackpressureLevel",
    "EventEnvelope",
    "EventMeta",
    "FeedbackEvent",
    "HealthStatus",
    "JsonCodec",
    "RateAdjustment",
    "telemetry",
]
