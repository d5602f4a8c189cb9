"""What Tidegate writes, as the schemas of a registry see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from msgspec.structs import replace

from schemas.bar import Bar, encode_bar
from schemas.dead_letter import DeadLetter, Reason, encode_dead_letter
from schemas.feedback import Feedback, Level, encode_feedback
from schemas.rate import RateAdjustment, encode_rate
from streams.extras import need

FEEDBACK: Final = "telemetry.FeedbackEvent"
RATE: Final = "telemetry.RateAdjustment"

#: What every registry of the ecosystem has.
REQUIRED: Final = (FEEDBACK, RATE)

#: The values of Tidegate's topics (of a dead letter, its header), by their names in `schemas.contracts`; looked at
#: where a registry has them.
OWN: Final = {
    "tidegate.Tick": "tick",
    "tidegate.Bar": "bar",
    "tidegate.Feedback": "feedback",
    "tidegate.RateAdjustment": "rate",
    "tidegate.DeadLetter": "dead-letter",
}


_BAR: Final = Bar(
    instrument="BINANCE:BTCUSDT",
    symbol="BTCUSDT",
    venue="BINANCE",
    type="1s",
    start_ns=1_723_161_255_000_000_000,
    end_ns=1_723_161_256_000_000_000,
    open="61837.63",
    high="61837.63",
    low="-0.00000001",
    close="61837.63",
    volume="0.02",
    turnover="1236.7526",
    vwap="61837.63",
    trade_count=1,
    buy_volume="0",
    sell_volume="0.02",
    first_trade_id="1",
    last_trade_id="1",
    first_offset=0,
    last_offset=0,
    source_topic="md.ticks.v1",
    source_partition=0,
    revision=0,
    final=True,
)

_LETTER: Final = DeadLetter(
    reason=Reason.late, detail="2 s behind the watermark", topic="md.ticks.v1", partition=0, offset=7, ts=1.5
)


def examples(name: str) -> Iterator[Any]:
    """Messages of each shape that Tidegate writes under this name, as JSON objects; ticks are written by others."""
    return map(json.loads, _written(name))


def _written(name: str) -> Iterator[bytes]:
    if name in (FEEDBACK, "tidegate.Feedback"):
        for level in Level:
            whole = Feedback(
                coordinator_id="host:1", queue_size=3, capacity=2, level=level, ts=1.5, partition=0, epoch=1
            )
            yield encode_feedback(whole)
            yield encode_feedback(replace(whole, drain_rate=1.5, arrival_rate=0.0, dropped=1))
    elif name in (RATE, "tidegate.RateAdjustment"):
        for level, scale in zip(Level, (1.0, 0.5, 0.0), strict=True):
            plain = RateAdjustment(provider="tidegate", scale=scale, reason=level, ts=1.5, partition=0)
            yield encode_rate(plain)
            yield encode_rate(replace(plain, coordinator_id="host:1", since=1.0))
    elif name == "tidegate.Bar":
        yield encode_bar(_BAR)
        # Trades without ids and of size 0, in a bar that is published early; a venue may be empty.
        yield encode_bar(
            replace(
                _BAR, venue="", vwap=None, volume="0", first_trade_id=None, last_trade_id=None, final=False
            )
        )
    elif name == "tidegate.DeadLetter":
        for reason in Reason:
            yield encode_dead_letter(replace(_LETTER, reason=reason))
        yield encode_dead_letter(
            replace(_LETTER, timestamp_ms=1, source="a.csv:2", replayed="md.ticks.v1[0]@9")
        )


def complaints(content: dict[str, Any], message: Any) -> list[str]:
    """What a JSON Schema has against a message: ``FIELD: reason``; nothing where it fits.

    A schema that cannot be used, as it is none or points to one that is elsewhere, has one thing against all
    messages: what a registry gives must not stop a worker.
    """
    pointing = need("registry", "referencing.exceptions", "looking at messages by a registry's schemas")
    try:
        errors = list(_validator(json.dumps(content, sort_keys=True)).iter_errors(message))
    except _Unusable as exc:
        return [f"what the registry gives is no JSON Schema: {exc}"]
    except pointing.Unresolvable as exc:
        return [f"what the registry gives is no whole JSON Schema: {exc}"]
    except RecursionError:
        return ["what the registry gives is a JSON Schema that goes round in circles"]
    found = ((".".join(map(str, error.absolute_path)), error.message) for error in errors)
    return sorted(f"{field}: {reason}" if field else reason for field, reason in found)


class _Unusable(Exception):
    """What should be a JSON Schema is none."""


@lru_cache(64)
def _validator(text: str) -> Any:
    """Compiled once: feedback is looked at one by one."""
    validators = need("registry", "jsonschema.validators", "looking at messages by a registry's schemas")
    exceptions = need("registry", "jsonschema.exceptions", "looking at messages by a registry's schemas")
    known = need("registry", "jsonschema_specifications", "looking at messages by a registry's schemas")
    content = json.loads(text)
    if not isinstance(content.get("$schema", ""), str):
        raise _Unusable("its $schema is no text")
    kind = validators.validator_for(content, default=validators.Draft202012Validator)
    try:
        kind.check_schema(content)
    except exceptions.SchemaError as exc:
        raise _Unusable(exc.message) from None
    # Of its own accord jsonschema fetches what a $ref names, from wherever that is, and waits for it.
    return kind(content, registry=known.REGISTRY)
