"""Feedback on the wire of core's event bus: bytes that the published packages wrote, and garbage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_data_core.events import InMemoryBus, JsonCodec
from market_data_core.events.envelope import EventEnvelope, EventMeta
from market_data_core.telemetry import BackpressureLevel, FeedbackEvent, RateAdjustment
from market_data_store.coordinator.feedback import FeedbackEvent as StoreEvent
from pydantic import BaseModel

from schemas.errors import BadRecord
from schemas.feedback import Feedback, Level, decode_feedback, encode_feedback
from streams.ecosystem.envelopes import decode_envelope, encode_envelope, to_feedback, unwrap

pytestmark = [pytest.mark.covers("FeedbackEvent"), pytest.mark.covers("event bus")]

# Read with XRANGE from Redis 7.0.15, where market-data-core 1.4.61 and market-data-store 0.6.73 had put them.
BY_STORE_PULSE = (
    b'{"ts": 1795866554.8084235, "key": "bars-coord", "meta": {"schema_id": "events.envelope.EventEnvelope", "t'
    b'rack": "v1", "headers": {}, "hash": "6d0af3fb06637bb6cd03b1c611dc16b555e344e2e3a15503c190361261909b1c"}, '
    b'"payload": {"id": "", "key": "bars-coord", "ts": 1795866554.8082612, "meta": {"schema_id": "telemetry.Fee'
    b'dbackEvent", "track": "v1", "headers": {"reason": "queue_recovered", "utilization": "0.500000"}, "hash": '
    b'null}, "payload": {"coordinator_id": "bars-coord", "queue_size": 500, "capacity": 1000, "level": "ok", "s'
    b'ource": "store", "ts": 1795866554.8082316}}}'
)
BY_CORE_PUBLISH = (
    b'{"ts": 1795866554.8099504, "key": "bars-coord", "meta": {"schema_id": "telemetry.backpressure.FeedbackEve'
    b'nt", "track": "v1", "headers": {}, "hash": "3d4b2321fe2e785fa7ae7c2a1f9a40e400f7ae4b0e987c51c800ed6442130'
    b'818"}, "payload": {"coordinator_id": "bars-coord", "queue_size": 600, "capacity": 1000, "level": "soft", '
    b'"source": "store", "ts": 1795866554.8094516}}'
)
BY_CORE_PUBLISH_OF_A_STORE_EVENT = (
    b'{"ts": 1795866554.8136878, "key": "bars-coord", "meta": {"schema_id": "market_data_store.coordinator.feed'
    b'back.FeedbackEvent", "track": "v1", "headers": {}, "hash": "c16862dde2e4be266dcfed0a3f1583582c58d3b9a8fcf'
    b'338db351cdfb69dc4ba"}, "payload": {"coordinator_id": "bars-coord", "queue_size": 1200, "capacity": 1000, '
    b'"level": "hard", "source": "store", "ts": 1795866554.8135822, "reason": "circuit_open"}}'
)
BY_CORE_CODEC = (
    b'{"ts": 1795866554.8151543, "key": "bars-coord", "meta": {"schema_id": "telemetry.FeedbackEvent", "track":'
    b' "v1", "headers": {}, "hash": "3d4b2321fe2e785fa7ae7c2a1f9a40e400f7ae4b0e987c51c800ed6442130818"}, "paylo'
    b'ad": {"coordinator_id": "bars-coord", "queue_size": 600, "capacity": 1000, "level": "soft", "source": "st'
    b'ore", "ts": 1795866554.8094516}}'
)


@pytest.mark.parametrize(
    ("data", "queue_size", "level", "ts", "headers"),
    [
        pytest.param(
            BY_STORE_PULSE,
            500,
            "ok",
            1795866554.8082316,
            {"reason": "queue_recovered", "utilization": "0.500000"},
            id="the store's Pulse publisher",
        ),
        pytest.param(BY_CORE_PUBLISH, 600, "soft", 1795866554.8094516, {}, id="core's publish"),
        pytest.param(
            BY_CORE_PUBLISH_OF_A_STORE_EVENT,
            1200,
            "hard",
            1795866554.8135822,
            {"reason": "circuit_open"},
            id="core's publish of the store's event",
        ),
        pytest.param(BY_CORE_CODEC, 600, "soft", 1795866554.8094516, {}, id="core's codec"),
    ],
)
def test_what_the_published_packages_put_on_the_wire_is_read(
    data: bytes, queue_size: int, level: str, ts: float, headers: dict[str, str]
) -> None:
    envelope = decode_envelope(data)
    assert envelope.payload == FeedbackEvent(
        coordinator_id="bars-coord",
        queue_size=queue_size,
        capacity=1000,
        level=BackpressureLevel(level),
        source="store",
        ts=ts,
    )
    assert type(envelope.payload) is FeedbackEvent
    assert envelope.meta.schema_id == "telemetry.FeedbackEvent"
    assert envelope.meta.headers == headers
    assert envelope.key == "bars-coord"


def an_event(**fields: Any) -> FeedbackEvent:
    given = {"coordinator_id": "c", "queue_size": 1, "capacity": 2, "level": "hard", "ts": 1.5} | fields
    return FeedbackEvent.model_validate(given)


@pytest.mark.parametrize("level", BackpressureLevel)
def test_what_is_written_is_read_by_core(level: BackpressureLevel) -> None:
    event = an_event(level=level)
    data = encode_envelope(event, track="v2", headers={"reason": "why"})
    envelope = JsonCodec().decode(data, FeedbackEvent)
    assert envelope.payload == event
    assert envelope.key == "c"
    assert (envelope.meta.schema_id, envelope.meta.track) == ("telemetry.FeedbackEvent", "v2")
    assert envelope.meta.headers == {"reason": "why"}
    assert decode_envelope(data).payload == event


async def test_envelopes_of_the_bus_in_memory_are_unwrapped_without_a_wire() -> None:
    bus = InMemoryBus()
    meta = EventMeta(schema_id="telemetry.FeedbackEvent", headers={"reason": "r"})
    await bus.publish("s", an_event(), key="k")
    await bus.publish("s", StoreEvent.create("c", 1, 2, BackpressureLevel.soft, reason="r"))
    await bus.publish("s", EventEnvelope(id="", key="inner", ts=1.0, meta=meta, payload=an_event()))
    received = bus.subscribe("s", group="g", consumer="c")
    plain, by_store, wrapped = [unwrap(await anext(received)) for _ in range(3)]
    assert (plain.payload, plain.key) == (an_event(), "k")
    assert (by_store.payload.level, by_store.meta.headers) == (BackpressureLevel.soft, {"reason": "r"})
    assert type(by_store.payload) is FeedbackEvent
    assert (wrapped.payload, wrapped.key, wrapped.meta.headers) == (an_event(), "inner", {"reason": "r"})
    assert wrapped.id


@pytest.mark.parametrize(
    "payload",
    [
        RateAdjustment(provider="p", scale=1, reason=BackpressureLevel.ok, ts=1),
        EventEnvelope.model_construct(payload=an_event()),
        EventEnvelope(id="", ts=1, meta=EventMeta(schema_id="telemetry.FeedbackEvent"), payload={}),
        EventEnvelope(id="", ts=1, meta=EventMeta(schema_id="telemetry.FeedbackEvent"), payload=None),
    ],
)
async def test_what_is_no_feedback_on_the_bus_in_memory_is_a_bad_record(payload: BaseModel) -> None:
    bus = InMemoryBus()
    await bus.publish("s", payload)
    envelope = await anext(bus.subscribe("s", group="g", consumer="c"))
    with pytest.raises(BadRecord):
        unwrap(envelope)


def changed(data: bytes, **payload: Any) -> bytes:
    body = json.loads(data)
    body["payload"] |= payload
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "can't decode"),
        (b"null", "NoneType"),
        (b"[]", "list"),
        (b"{}", "it has no meta"),
        (b'{"meta": 1}', "EventMeta"),
        (b'{"meta": {"track": "v1"}, "payload": {}, "ts": 1}', "schema_id: Field required"),
        (b'{"meta": {"schema_id": "telemetry.FeedbackEvent", "track": "v3"}}', "track: Input should be"),
        (b'{"meta": {"schema_id": "telemetry.FeedbackEvent"}, "ts": 1}', "it has no payload"),
        (b'{"meta": {"schema_id": "telemetry.FeedbackEvent"}, "payload": [], "ts": 1}', "FeedbackEvent"),
        (b'{"meta": {"schema_id": "events.envelope.EventEnvelope"}, "payload": 1, "ts": 1}', "EventEnvelope"),
        (b'{"meta": {"schema_id": "x"}, "payload": {}, "ts": 1}', 'its schema id is "x"'),
        (BY_CORE_CODEC.replace(b"telemetry.FeedbackEvent", b"telemetry.RateAdjustment"), "RateAdjustment"),
        (BY_STORE_PULSE.replace(b"telemetry.FeedbackEvent", b"telemetry.RateAdjustment"), "RateAdjustment"),
        (changed(BY_CORE_CODEC, level="loud"), "level: Input should be 'ok', 'soft' or 'hard'"),
        (changed(BY_CORE_CODEC, queue_size=-1), "queue_size: .*greater than or equal to 0"),
        (changed(BY_CORE_CODEC, capacity=0), "capacity: .*greater than 0"),
        (changed(BY_CORE_CODEC, coordinator_id="\ud800"), "surrogates"),
        (changed(BY_CORE_CODEC, coordinator_id="c" * 1025), "coordinator_id: .*exceeds 1024"),
        (BY_CORE_CODEC.replace(b"600", b"9" * 5000), "digits|out of range|Input|number"),
        (b'{"meta":' * 100_000, "recursion"),
    ],
)
def test_garbage_is_a_bad_record_that_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        decode_envelope(data)


def test_an_envelope_that_is_wrapped_for_ever_is_refused() -> None:
    body = json.loads(BY_STORE_PULSE)
    for _ in range(5):
        body = body | {"payload": {"id": ""} | body}
    with pytest.raises(BadRecord, match="an envelope in an envelope"):
        decode_envelope(json.dumps(body).encode())


@given(st.binary(max_size=60))
def test_nothing_but_a_bad_record_is_raised(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_envelope(data)


@given(
    st.dictionaries(
        st.sampled_from(["ts", "key", "meta", "payload", "id"]), st.none() | st.text() | st.floats()
    )
)
def test_nothing_but_a_bad_record_is_raised_of_fields_of_another_type(fields: dict[str, Any]) -> None:
    body = json.loads(BY_STORE_PULSE)
    body["payload"] |= fields
    try:
        decode_envelope(json.dumps(body).encode())
    except BadRecord:
        assert fields


@pytest.mark.parametrize("level", BackpressureLevel)
def test_an_event_becomes_feedback_about_a_partition(level: BackpressureLevel) -> None:
    feedback = to_feedback(an_event(level=level, queue_size=3), 7)
    assert feedback == Feedback(
        coordinator_id="c",
        queue_size=3,
        capacity=2,
        level=Level(level.value),
        source="store",
        ts=1.5,
        partition=7,
        epoch=0,
    )
    assert decode_feedback(encode_feedback(feedback)) == feedback
    again = to_feedback(an_event(), 7, epoch=5, source="pulse", ts=2.5)
    assert (again.epoch, again.source, again.ts) == (5, "pulse", 2.5)


@pytest.mark.parametrize(
    "fields", [{"ts": float("nan")}, {"ts": float("inf")}, {"queue_size": 2**63}, {"coordinator_id": ""}]
)
def test_an_event_that_does_not_fit_the_feedback_topic_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match="not a feedback message"):
        to_feedback(an_event(**fields), 0)
