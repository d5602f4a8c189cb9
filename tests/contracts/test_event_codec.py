"""Events on a stream: written so that core's codec reads them, read as core's buses and the store write them."""

from __future__ import annotations

import json

import pytest
from market_data_core.events import JsonCodec
from market_data_core.events.envelope import EventEnvelope, EventMeta
from market_data_core.telemetry import (
    BackpressureLevel,
    FeedbackEvent,
    HealthStatus,
    RateAdjustment,
)
from pydantic import BaseModel

from schemas.errors import BadRecord, ConfigError
from streams.ecosystem.event_codec import EventCodec

pytestmark = pytest.mark.covers("event bus")

FEEDBACK = FeedbackEvent(
    coordinator_id="bars", queue_size=850, capacity=1000, level=BackpressureLevel.hard, ts=1795866554.25
)
RATE = RateAdjustment(provider="ibkr", scale=0.5, reason=BackpressureLevel.soft, ts=1795866554.25)
HEALTH = HealthStatus(service="store", state="degraded", version="1", ts=1795866554.25)


class StoreEvent(FeedbackEvent):
    """As market-data-store extends core's."""

    reason: str | None = None


class Mine(BaseModel):
    """A model of a user's own."""

    symbol: str
    n: int


def wrapped(
    payload: BaseModel, schema_id: str, track: str = "v1", **headers: str
) -> EventEnvelope[BaseModel]:
    meta = EventMeta(schema_id=schema_id, track=track, headers=headers)
    return EventEnvelope(id="", key="inner", ts=5.0, meta=meta, payload=payload)


@pytest.mark.parametrize("track", ["v1", "v2"])
@pytest.mark.parametrize(
    ("value", "schema_id"),
    [
        (FEEDBACK, "telemetry.FeedbackEvent"),
        (RATE, "telemetry.RateAdjustment"),
        (HEALTH, "telemetry.HealthStatus"),
    ],
)
def test_what_is_written_is_read_by_core_s_codec_and_by_ours(
    track: str, value: BaseModel, schema_id: str
) -> None:
    data, key = EventCodec(track).encode(value, "k")
    assert key == "k"
    by_core = JsonCodec().decode(data, type(value))
    assert (by_core.payload, by_core.key) == (value, "k")
    assert (by_core.meta.schema_id, by_core.meta.track) == (schema_id, track)
    ours = EventCodec().decode(data)
    assert (ours.payload, ours.key, ours.ts, ours.meta.track) == (value, "k", by_core.ts, track)
    assert ours.meta.schema_id == schema_id


@pytest.mark.parametrize("track", ["v1", "v2"])
@pytest.mark.parametrize(
    "schema_id",
    ["telemetry.FeedbackEvent", "telemetry.backpressure.FeedbackEvent", "events.envelope.EventEnvelope"],
)
def test_feedback_is_read_by_each_of_its_schema_ids(schema_id: str, track: str) -> None:
    value = (
        wrapped(FEEDBACK, "telemetry.FeedbackEvent", track, reason="circuit_open", utilization="0.85")
        if schema_id.endswith("EventEnvelope")
        else FEEDBACK
    )
    envelope = EventCodec().decode(JsonCodec(track).encode(schema_id, value, key="outer"))
    assert envelope.payload == FEEDBACK
    assert envelope.meta.track == track
    if value is not FEEDBACK:
        assert envelope.key == "inner"
        assert envelope.meta.headers == {"reason": "circuit_open", "utilization": "0.85"}


def test_other_events_are_unwrapped_as_well() -> None:
    data = JsonCodec().encode(
        "events.envelope.EventEnvelope", wrapped(RATE, "telemetry.RateAdjustment", a="b")
    )
    envelope = EventCodec().decode(data)
    assert (envelope.payload, envelope.key, envelope.ts) == (RATE, "inner", 5.0)
    assert envelope.meta.headers == {"a": "b"}


def test_an_envelope_that_is_published_is_not_wrapped_in_another_one() -> None:
    data, key = EventCodec().encode(wrapped(FEEDBACK, "telemetry.FeedbackEvent", "v2", reason="circuit_open"))
    by_core = JsonCodec().decode(data, FeedbackEvent)
    assert (by_core.payload, by_core.key, key) == (FEEDBACK, "inner", "inner")
    assert by_core.meta.track == "v2"
    assert by_core.meta.headers == {"reason": "circuit_open"}


def test_the_store_s_own_event_is_feedback_and_its_reason_a_header() -> None:
    data, _ = EventCodec().encode(StoreEvent(**FEEDBACK.model_dump(), reason="circuit_open"))
    envelope = EventCodec().decode(data)
    assert envelope.meta.schema_id == "telemetry.FeedbackEvent"
    assert envelope.payload == FEEDBACK
    assert envelope.meta.headers["reason"] == "circuit_open"
    own = EventCodec(models={"telemetry.FeedbackEvent": StoreEvent}).decode(data)
    assert own.payload == StoreEvent(**FEEDBACK.model_dump(), reason="circuit_open")


def test_models_of_one_s_own_go_by_the_id_that_they_were_given() -> None:
    codec = EventCodec(models={"mine.Mine": Mine})
    data, _ = codec.encode(Mine(symbol="A", n=1))
    assert codec.decode(data).payload == Mine(symbol="A", n=1)
    assert json.loads(data)["meta"]["schema_id"] == "mine.Mine"
    with pytest.raises(BadRecord, match=r"'mine\.Mine' is not known"):
        EventCodec().decode(data)


GOOD = json.loads(JsonCodec().encode("telemetry.FeedbackEvent", FEEDBACK))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no value"),
        (b"", "Expecting value"),
        (b"\xff\xfe", "decode"),
        (b"[]", "not an event"),
        (b"null", "not an event"),
        (b"{}", "has no meta"),
        (json.dumps({**GOOD, "meta": {}}).encode(), "schema_id"),
        (json.dumps({**GOOD, "meta": {"schema_id": "telemetry.Nothing"}}).encode(), "is not known"),
        (json.dumps({**GOOD, "meta": {**GOOD["meta"], "track": "v3"}}).encode(), "track"),
        (json.dumps({**GOOD, "payload": {**GOOD["payload"], "queue_size": -1}}).encode(), "queue_size"),
        (json.dumps({**GOOD, "payload": {}}).encode(), "coordinator_id"),
        (b'{"meta": {"schema_id": "events.envelope.EventEnvelope"}}', "has no payload"),
        (b"[" * 100_000, "not an event"),
    ],
)
def test_what_is_no_event_says_why(data: bytes | None, said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        EventCodec().decode(data)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="track 'v3'"):
        EventCodec("v3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not dict"):
        EventCodec().encode({"level": "ok"})  # type: ignore[arg-type]
