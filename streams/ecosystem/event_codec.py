"""Events in core's envelope, to and from the bytes of a record, by core's own `JsonCodec`.

Needs the extra ``core``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.errors import BadRecord, ConfigError
from schemas.wire import explain
from streams.ecosystem.core import EventEnvelope, FeedbackEvent, JsonCodec, telemetry
from streams.ecosystem.envelopes import FEEDBACK, Track, decode_envelope

_CORE = "market_data_core."
_WRAPPER = "events.envelope.EventEnvelope"
_MAX_DEPTH = 3

#: What is read without being told: core's telemetry, by the ids of its contract and those that its buses make.
_TELEMETRY: dict[type[BaseModel], str] = {
    model: f"telemetry.{name}"
    for name in telemetry.__all__
    if isinstance(model := getattr(telemetry, name), type) and issubclass(model, BaseModel)
}


def _by_class(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}".removeprefix(_CORE)


_KNOWN = {name: model for model, id_ in _TELEMETRY.items() for name in (id_, _by_class(model))}


class EventCodec:
    """Envelopes of events: feedback by any of its schema ids, core's telemetry, and `models` by schema id.

    An envelope in an envelope, as market-data-store's Pulse publisher makes it, is the inner one.
    """

    def __init__(self, track: Track = "v1", models: Mapping[str, type[BaseModel]] | None = None) -> None:
        if track not in ("v1", "v2"):
            raise ConfigError(f"track {track!r} is not known", hint="v1 or v2")
        self._track: Track = track
        self._models = dict(models or {})

    def encode(self, value: BaseModel, key: str | None = None) -> tuple[bytes, str | None]:
        """The bytes of an event, and its key. An `EventEnvelope` gives its payload, key, headers and track."""
        if isinstance(value, EventEnvelope):
            meta, payload = value.meta, value.payload
            key = value.key if key is None else key
            data = JsonCodec(meta.track).encode(self._schema_id(payload, meta.schema_id), payload, key=key)
            if meta.headers:  # core's codec has no way to give them
                body = json.loads(data)
                body["meta"]["headers"] = meta.headers
                data = json.dumps(body).encode()
            return data, key
        if not isinstance(value, BaseModel):
            raise TypeError(f"an event is a pydantic model, not {type(value).__name__}")
        return JsonCodec(self._track).encode(self._schema_id(value), value, key=key), key

    def _schema_id(self, payload: Any, given: str | None = None) -> str:
        if isinstance(payload, FeedbackEvent):  # the store's, too
            return FEEDBACK
        known = _TELEMETRY.get(type(payload)) or next(
            (name for name, model in self._models.items() if model is type(payload)), None
        )
        return given or known or str(getattr(payload, "__schema_id__", None) or _by_class(type(payload)))

    def decode(self, data: bytes | None) -> EventEnvelope[Any]:
        """The event, its id empty. Raises BadRecord."""
        if data is None:
            raise BadRecord("not an event: the record has no value")
        try:
            return self._decode(data)
        except ValidationError as error:
            raise BadRecord(f"not an event: {explain(error)}") from None
        except KeyError as error:
            raise BadRecord(f"not an event: its envelope has no {error.args[0]}") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise BadRecord(f"not an event: {error}") from None

    def _decode(self, data: bytes) -> EventEnvelope[Any]:
        inner = data
        for _ in range(_MAX_DEPTH):
            schema_id = JsonCodec().decode_meta_only(inner).schema_id
            if (model := self._models.get(schema_id)) is not None:
                return JsonCodec().decode(inner, model)
            if schema_id != _WRAPPER:
                break
            inner = json.dumps(json.loads(inner)["payload"]).encode()
        if schema_id in _KNOWN and not issubclass(_KNOWN[schema_id], FeedbackEvent):
            return JsonCodec().decode(inner, _KNOWN[schema_id])
        if schema_id.endswith(".FeedbackEvent"):
            return decode_envelope(data)
        raise BadRecord(f"schema id {schema_id!r} is not known")
