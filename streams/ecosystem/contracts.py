"""Tidegate's messages as market-data-core's, and core's as Tidegate's: feedback, rate adjustments, health.

    event = core_feedback(decode_feedback(record.value))    # a market_data_core.telemetry.FeedbackEvent
    feedback = to_feedback(event, partition=3)              # and back

Core's feedback names no partition: whoever takes it over says which one it is about, or tells it to each. It has
no epoch either: 0 for all of a coordinator's words means that the one with the higher ts counts. What only Tidegate
knows (partition, epoch, rates, drops, since) is in the JSON that core reads, and core ignores it. What the store's
own event adds (reason, utilization) has no field in core's contract, and stays behind.

Every JSON that Tidegate writes of these three is JSON that core reads. The other way the functions `..._from_json`
read it, and ignore fields that they do not know; what is out of bounds, missing or not a number is a `BadRecord`
that names the field.

Needs the extra ``core``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from schemas.errors import BadRecord
from schemas.feedback import Feedback
from schemas.health import HealthStatus
from schemas.rate import RateAdjustment, RateAdjustmentModel
from schemas.wire import explain
from streams.ecosystem import core
from streams.ecosystem.envelopes import to_feedback

__all__ = [
    "core_feedback",
    "core_health",
    "core_rate",
    "feedback_from_json",
    "health_from_json",
    "health_to_json",
    "rate_from_json",
    "to_feedback",
    "to_health",
    "to_rate",
]

Model = TypeVar("Model", bound=BaseModel)

_encode = msgspec.json.Encoder().encode


def core_feedback(feedback: Feedback) -> core.FeedbackEvent:
    """As core has it."""
    return _valid(core.FeedbackEvent, msgspec.to_builtins(feedback), "feedback event")


def feedback_from_json(value: bytes, partition: int) -> Feedback:
    """From what core's `model_dump_json` gave, for one partition. Raises BadRecord."""
    return to_feedback(_read(core.FeedbackEvent, value, "feedback event"), partition)


def to_rate(
    adjustment: core.RateAdjustment, *, topic: str | None = None, partition: int | None = None
) -> RateAdjustment:
    """Core's adjustment, of a provider; with a partition, of that partition of its ticks. Raises BadRecord."""
    checked = _valid(
        RateAdjustmentModel,
        {
            "provider": adjustment.provider,
            "scale": adjustment.scale,
            "reason": adjustment.reason,
            "ts": adjustment.ts,
            "topic": topic,
            "partition": partition,
        },
        "rate adjustment",
    )
    return RateAdjustment(**checked.model_dump())


def core_rate(adjustment: RateAdjustment) -> core.RateAdjustment:
    """As core has it: the partition is left out."""
    return _valid(core.RateAdjustment, msgspec.to_builtins(adjustment), "rate adjustment")


def rate_from_json(value: bytes) -> RateAdjustment:
    """From what core's `model_dump_json` gave. Raises BadRecord."""
    return to_rate(_read(core.RateAdjustment, value, "rate adjustment"))


def to_health(status: core.HealthStatus) -> HealthStatus:
    """Core's health of a service. Raises BadRecord."""
    if not isfinite(status.ts):
        raise BadRecord(f"not a health status: ts is {status.ts}")
    try:
        return msgspec.convert(status.model_dump(mode="json"), HealthStatus)
    except msgspec.ValidationError as error:
        raise BadRecord(f"not a health status: {error}") from None


def core_health(status: HealthStatus) -> core.HealthStatus:
    """As core has it."""
    return _valid(core.HealthStatus, msgspec.to_builtins(status), "health status")


def health_from_json(value: bytes) -> HealthStatus:
    """From what core's `model_dump_json` gave. Raises BadRecord."""
    return to_health(_read(core.HealthStatus, value, "health status"))


def health_to_json(status: HealthStatus) -> bytes:
    """JSON that core reads."""
    return _encode(status)


def _read(model: type[Model], value: bytes, what: str) -> Model:
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        raise BadRecord(f"not a {what}: {explain(error)}") from None


def _valid(model: type[Model], fields: Mapping[str, Any], what: str) -> Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise BadRecord(f"not a {what}: {explain(error)}") from None
