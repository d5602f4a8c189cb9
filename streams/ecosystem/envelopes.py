"""Feedback as market-data-core's event bus carries it: JSON in an envelope, read and written by core's own codec.

One thing goes by several schema ids on the wire, and all of them are read:

- ``telemetry.FeedbackEvent``, the id in core's contract, and the one that is written here;
- ``telemetry.backpressure.FeedbackEvent``, which core's ``publish`` makes of the class, and core's ``subscribe``
  dead-letters;
- ``events.envelope.EventEnvelope``: the Pulse publisher of market-data-store gives core a whole envelope, which
  core wraps in another one. The headers, such as reason and utilization, are the inner one's;
- ``market_data_store.coordinator.feedback.FeedbackEvent``: the store's own event, given to core's ``publish``.

Needs the extra ``core``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from market_data_core.events.codecs import JsonCodec
from market_data_core.events.envelope import EventEnvelope, EventMeta
from market_data_core.telemetry import FeedbackEvent
from pydantic import BaseModel, ValidationError

from schemas.errors import BadRecord
from schemas.feedback import Feedback
from schemas.fixed import shorten
from schemas.wire import explain

Track = Literal["v1", "v2"]

#: The schema id that is written.
FEEDBACK = "telemetry.FeedbackEvent"
_FEEDBACK_IDS = frozenset(
    {
        FEEDBACK,
        "telemetry.backpressure.FeedbackEvent",
        "market_data_store.coordinator.feedback.FeedbackEvent",
    }
)
_WRAPPER = "events.envelope.EventEnvelope"
_MAX_DEPTH = 3
_MAX_TEXT = 1024

_codec = JsonCodec()


def decode_envelope(data: bytes) -> EventEnvelope[FeedbackEvent]:
    """One feedback event from the wire, unwrapped. Raises BadRecord."""
    try:
        schema_id = _codec.decode_meta_only(data).schema_id
        if schema_id not in _FEEDBACK_IDS and schema_id != _WRAPPER:
            raise BadRecord(f"not feedback: its schema id is {shorten(schema_id)}")
        model = EventEnvelope if schema_id == _WRAPPER else FeedbackEvent
        envelope: EventEnvelope[Any] = _codec.decode(data, model)
        if model is FeedbackEvent:  # what the store adds to the event is in no field of core's
            envelope.payload = json.loads(data)["payload"]
    except ValidationError as error:
        raise BadRecord(f"not a feedback envelope: {explain(error)}") from None
    except KeyError as error:
        raise BadRecord(f"not a feedback envelope: it has no {error.args[0]}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRecord(f"not a feedback envelope: {error}") from None
    return unwrap(envelope)


def unwrap(envelope: EventEnvelope[Any]) -> EventEnvelope[FeedbackEvent]:
    """The envelope around a feedback event itself, as core's buses give it or as `decode_envelope` reads it.

    Id and key stay, headers of all layers are joined, of two the inner one counts; the reason that the store's
    own event has is among them. Raises BadRecord where it is about something else.
    """
    headers: dict[str, str] = {}
    layer, key = envelope, envelope.key
    for _ in range(_MAX_DEPTH):
        headers |= layer.meta.headers
        key = layer.key or key
        payload = layer.payload
        if isinstance(payload, FeedbackEvent) or layer.meta.schema_id in _FEEDBACK_IDS:
            event, reason = _event(payload)
            if reason is not None:
                headers.setdefault("reason", reason)
            _check_texts(event, key or "", *headers, *headers.values())
            meta = EventMeta(schema_id=FEEDBACK, track=layer.meta.track, headers=headers)
            return EventEnvelope(id=envelope.id, key=key, ts=layer.ts, meta=meta, payload=event)
        if isinstance(payload, EventEnvelope):
            layer = _validated(EventEnvelope, dict(payload))
        elif layer.meta.schema_id == _WRAPPER:
            layer = _validated(EventEnvelope, payload)
        else:
            raise BadRecord(f"not feedback: its schema id is {shorten(layer.meta.schema_id)}")
    raise BadRecord("not feedback: an envelope in an envelope in an envelope")


def encode_envelope(
    event: FeedbackEvent,
    *,
    key: str | None = None,
    track: Track = "v1",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes that core's buses carry; the key is the coordinator, unless another one is given."""
    data = JsonCodec(track).encode(FEEDBACK, event, key=event.coordinator_id if key is None else key)
    if not headers:
        return data
    body = json.loads(data)  # core's codec has no way to give headers
    body["meta"]["headers"] = dict(headers)
    return json.dumps(body).encode()


def to_feedback(
    event: FeedbackEvent,
    partition: int,
    *,
    epoch: int = 0,
    source: str | None = None,
    ts: float | None = None,
) -> Feedback:
    """The same for one partition, as Tidegate's feedback topic carries it. Raises BadRecord where it does not fit.

    Core knows no epoch: with one for all, the later `ts` counts. `ts`, in epoch seconds, is the event's own
    unless another one is given.
    """
    at = event.ts if ts is None else ts
    if not math.isfinite(at):
        raise BadRecord(f"not a feedback message: ts is {at}")
    try:
        return msgspec.convert(
            {
                "coordinator_id": event.coordinator_id,
                "queue_size": event.queue_size,
                "capacity": event.capacity,
                "level": event.level.value,
                "source": event.source if source is None else source,
                "ts": at,
                "partition": partition,
                "epoch": epoch,
            },
            Feedback,
        )
    except msgspec.ValidationError as error:
        raise BadRecord(f"not a feedback message: {error}") from None


def _event(payload: Any) -> tuple[FeedbackEvent, str | None]:
    """Core's event, and the reason that the store's has beside it."""
    fields = payload.model_dump() if isinstance(payload, BaseModel) else payload
    event = _validated(FeedbackEvent, fields)
    reason = fields.get("reason")
    return event, reason if isinstance(reason, str) else None


def _check_texts(event: FeedbackEvent, *others: str) -> None:
    for field, text in (("coordinator_id", event.coordinator_id), ("source", event.source)):
        if len(text) > _MAX_TEXT:  # it becomes a key in Kafka, and a record has its limits
            raise BadRecord(
                f"not a feedback envelope: {field}: {shorten(text)} exceeds {_MAX_TEXT} characters"
            )
    try:
        "".join((event.coordinator_id, event.source, *others)).encode()
    except UnicodeEncodeError as error:  # JSON can escape half a character, which no encoding has
        raise BadRecord(f"not a feedback envelope: {error}") from None


def _validated(model: type[Any], value: Any) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BadRecord(f"not a feedback envelope: {explain(error)}") from None
