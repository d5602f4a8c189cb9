"""What Tidegate writes, as the schemas of a registry see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

from schemas.errors import ConfigError
from schemas.feedback import Feedback, Level, encode_feedback
from schemas.rate import RateAdjustment, encode_rate
from streams.extras import need

FEEDBACK: Final = "telemetry.FeedbackEvent"
RATE: Final = "telemetry.RateAdjustment"

#: What every registry of the ecosystem has.
REQUIRED: Final = (FEEDBACK, RATE)

#: The values of Tidegate's topics, by their names in `schemas.contracts`; looked at where a registry has them.
OWN: Final = {
    "tidegate.Tick": "tick",
    "tidegate.Bar": "bar",
    "tidegate.Feedback": "feedback",
    "tidegate.RateAdjustment": "rate",
    "tidegate.DeadLetter": "dead-letter",
}


def examples(name: str) -> Iterator[Any]:
    """Messages of each shape that Tidegate writes under this name, as JSON objects."""
    if name in (FEEDBACK, "tidegate.Feedback"):
        for level in Level:
            whole = Feedback(
                coordinator_id="host:1", queue_size=3, capacity=2, level=level, ts=1.5, partition=0, epoch=1
            )
            measured = msgspec.structs.replace(whole, drain_rate=1.5, arrival_rate=0.0, dropped=1)
            yield from (json.loads(encode_feedback(message)) for message in (whole, measured))
    elif name in (RATE, "tidegate.RateAdjustment"):
        for level, scale in zip(Level, (1.0, 0.5, 0.0), strict=True):
            plain = RateAdjustment(provider="tidegate", scale=scale, reason=level, ts=1.5, partition=0)
            held = msgspec.structs.replace(plain, coordinator_id="host:1", since=1.0)
            yield from (json.loads(encode_rate(message)) for message in (plain, held))


def complaints(content: dict[str, Any], message: Any) -> list[str]:
    """What a JSON Schema has against a message: ``FIELD: reason``; nothing where it fits."""
    errors = _validator(json.dumps(content, sort_keys=True)).iter_errors(message)
    found = ((".".join(map(str, error.absolute_path)), error.message) for error in errors)
    return sorted(f"{field}: {reason}" if field else reason for field, reason in found)


@lru_cache(64)
def _validator(text: str) -> Any:
    """Compiled once: feedback is looked at one by one. Raises `ConfigError` for what is no JSON Schema."""
    validators = need("registry", "jsonschema.validators", "looking at messages by a registry's schemas")
    exceptions = need("registry", "jsonschema.exceptions", "looking at messages by a registry's schemas")
    content = json.loads(text)
    kind = validators.validator_for(content, default=validators.Draft202012Validator)
    try:
        kind.check_schema(content)
    except exceptions.SchemaError as exc:
        raise ConfigError(f"what the registry gives is no JSON Schema: {exc.message}") from None
    return kind(content)
