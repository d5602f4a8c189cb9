"""Tidegate's feedback, rate adjustments and health as market-data-core's own classes, in both directions."""

from __future__ import annotations

import json
import math

import market_data_core.telemetry as core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadRecord
from schemas.feedback import Feedback, Level, decode_feedback, encode_feedback
from schemas.health import HealthComponent, HealthState, HealthStatus
from schemas.rate import RateAdjustment, decode_rate, encode_rate
from streams.ecosystem.contracts import (
    core_feedback,
    core_health,
    core_rate,
    feedback_from_json,
    health_from_json,
    health_to_json,
    rate_from_json,
    to_feedback,
    to_health,
    to_rate,
)

LEVELS = [level.value for level in Level]
EVENT = {"coordinator_id": "bars", "queue_size": 850, "capacity": 1000, "level": "hard", "ts": 1795866554.25}
ADJUSTMENT = {"provider": "ibkr", "scale": 0.7, "reason": "soft", "ts": 1795866554.25}
STATUS = {"service": "store", "state": "healthy", "version": "1.1.0", "ts": 1795866554.25}

instants = st.floats(0, 1e11)
naturals = st.integers(0, 2**63 - 1)
names = st.text(min_size=1, max_size=20)
feedbacks = st.builds(
    Feedback,
    coordinator_id=names,
    queue_size=naturals,
    capacity=st.integers(1, 2**63 - 1),
    level=st.sampled_from(Level),
    source=st.text(max_size=9),
    ts=instants,
    partition=naturals,
    epoch=naturals,
    drain_rate=st.none() | st.floats(0, 1e9),
    dropped=naturals,
    scale=st.none() | st.floats(0, 1),
)
adjustments = st.builds(
    RateAdjustment,
    provider=st.text(max_size=9),
    scale=st.floats(0, 1),
    reason=st.sampled_from(Level),
    ts=instants,
    partition=st.none() | naturals,
    since=st.none() | instants,
)
parts = st.builds(
    HealthComponent,
    name=names,
    state=st.sampled_from(HealthState),
    details=st.dictionaries(names, st.text(max_size=9), max_size=3),
)
statuses = st.builds(
    HealthStatus,
    service=names,
    state=st.sampled_from(HealthState),
    components=st.lists(parts, max_size=3),
    version=names,
    ts=instants,
)

of_feedback = pytest.mark.covers("FeedbackEvent")
of_levels = pytest.mark.covers("BackpressureLevel")
of_rate = pytest.mark.covers("RateAdjustment")
of_health = pytest.mark.covers("HealthStatus")


@of_levels
def test_the_levels_are_core_s_in_name_and_value() -> None:
    assert {level.name: level.value for level in core.BackpressureLevel} == {
        level.name: level.value for level in Level
    }


@of_levels
@of_feedback
@pytest.mark.parametrize("level", LEVELS)
def test_core_s_feedback_is_feedback_about_a_partition(level: str) -> None:
    event = core.FeedbackEvent(**{**EVENT, "level": level, "source": "store"})
    feedback = to_feedback(event, 3)
    assert feedback == Feedback(
        coordinator_id="bars",
        queue_size=850,
        capacity=1000,
        level=Level(level),
        source="store",
        ts=1795866554.25,
        partition=3,
        epoch=0,
    )
    assert core_feedback(feedback) == event
    assert feedback_from_json(event.model_dump_json().encode(), 3) == feedback
    assert decode_feedback(encode_feedback(feedback)) == feedback


@of_feedback
@settings(max_examples=50)
@given(feedbacks)
def test_every_feedback_is_a_core_event_and_its_json_is_core_s(feedback: Feedback) -> None:
    event = core_feedback(feedback)
    assert core.FeedbackEvent.model_validate_json(encode_feedback(feedback)) == event
    back = to_feedback(event, feedback.partition, epoch=feedback.epoch)
    for field in core.FeedbackEvent.model_fields:
        assert getattr(back, field) == getattr(feedback, field)
    assert (back.partition, back.epoch) == (feedback.partition, feedback.epoch)


@of_rate
@of_levels
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scale", [0.0, 0.7, 1.0])
def test_core_s_rate_adjustment_goes_and_comes_back(level: str, scale: float) -> None:
    adjustment = core.RateAdjustment(**{**ADJUSTMENT, "scale": scale, "reason": level})
    rate = to_rate(adjustment, topic="md.ticks.v1", partition=2)
    assert (rate.provider, rate.scale, rate.reason, rate.ts) == ("ibkr", scale, Level(level), 1795866554.25)
    assert (rate.topic, rate.partition) == ("md.ticks.v1", 2)
    assert core_rate(rate) == adjustment
    # The rate topic's own reader takes core's JSON as it is.
    for read in (rate_from_json, decode_rate):
        assert read(adjustment.model_dump_json().encode()) == to_rate(adjustment)


@of_rate
@settings(max_examples=50)
@given(adjustments)
def test_every_rate_adjustment_is_core_s_and_so_is_its_json(adjustment: RateAdjustment) -> None:
    as_core = core_rate(adjustment)
    assert core.RateAdjustment.model_validate_json(encode_rate(adjustment)) == as_core
    back = to_rate(as_core, partition=adjustment.partition)
    assert (back.provider, back.scale, back.reason, back.ts, back.partition) == (
        adjustment.provider,
        adjustment.scale,
        adjustment.reason,
        adjustment.ts,
        adjustment.partition,
    )


@of_health
@settings(max_examples=50)
@given(statuses)
def test_health_goes_and_comes_back_whole(status: HealthStatus) -> None:
    as_core = core_health(status)
    assert to_health(as_core) == status
    assert core.HealthStatus.model_validate_json(health_to_json(status)) == as_core
    assert health_from_json(as_core.model_dump_json().encode()) == status


@of_health
@pytest.mark.parametrize("state", [state.value for state in HealthState])
def test_core_s_health_may_leave_out_what_has_a_default(state: str) -> None:
    status = health_from_json(json.dumps({**STATUS, "state": state}).encode())
    assert status == HealthStatus("store", HealthState(state), [], "1.1.0", 1795866554.25)
    part = health_from_json(
        json.dumps({**STATUS, "components": [{"name": "db", "state": state}]}).encode()
    ).components[0]
    assert part == HealthComponent("db", HealthState(state), {})


@of_feedback
@of_rate
@of_health
def test_fields_that_nobody_knows_are_ignored_in_both_directions() -> None:
    more = {"reason": "circuit_open", "utilization": 0.85, "nested": {"a": [1]}}
    feedback = feedback_from_json(json.dumps({**EVENT, **more}).encode(), 0)
    assert feedback == feedback_from_json(json.dumps(EVENT).encode(), 0)
    assert core.FeedbackEvent.model_validate({**EVENT, **more}) == core.FeedbackEvent(**EVENT)
    nobody = {"nobody": 1}
    assert rate_from_json(json.dumps({**ADJUSTMENT, **nobody}).encode()).scale == 0.7
    assert health_from_json(json.dumps({**STATUS, **nobody}).encode()).service == "store"


@of_feedback
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queue_size", -1),
        ("queue_size", 1.5),
        ("queue_size", 2**63),
        ("capacity", 0),
        ("capacity", -5),
        ("level", "high"),
        ("level", None),
        ("coordinator_id", ""),
        ("coordinator_id", None),
        ("ts", math.nan),
        ("ts", math.inf),
        ("ts", "yesterday"),
        *((field, ...) for field in EVENT),
    ],
)
def test_feedback_out_of_bounds_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    fields = {**EVENT, field: value}
    if value is ...:
        del fields[field]
    with pytest.raises(BadRecord, match=field):
        feedback_from_json(json.dumps(fields).encode(), 0)


@of_feedback
def test_feedback_may_exceed_the_capacity_as_core_allows() -> None:
    assert feedback_from_json(json.dumps({**EVENT, "queue_size": 5000}).encode(), 0).queue_size == 5000


@of_feedback
@of_rate
@of_health
def test_what_core_lets_through_unchecked_is_refused_here() -> None:
    with pytest.raises(BadRecord, match="ts"):
        to_feedback(core.FeedbackEvent(**{**EVENT, "ts": math.nan}), 0)
    with pytest.raises(BadRecord, match="queue_size"):
        to_feedback(
            core.FeedbackEvent.model_construct(
                **{**EVENT, "level": core.BackpressureLevel.ok, "queue_size": -1, "source": "store"}
            ),
            0,
        )
    with pytest.raises(BadRecord, match="ts"):
        to_rate(core.RateAdjustment(**{**ADJUSTMENT, "ts": math.inf}))
    with pytest.raises(BadRecord, match="scale"):
        to_rate(core.RateAdjustment.model_construct(**{**ADJUSTMENT, "scale": math.nan}))
    with pytest.raises(BadRecord, match="ts"):
        to_health(core.HealthStatus(**{**STATUS, "ts": math.nan}))
    with pytest.raises(BadRecord, match="state"):
        to_health(core.HealthStatus.model_construct(**{**STATUS, "state": "ill", "components": []}))


@of_rate
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", -0.1),
        ("scale", 1.1),
        ("scale", math.nan),
        ("ts", math.nan),
        ("reason", "high"),
        *((field, ...) for field in ADJUSTMENT),
    ],
)
def test_a_rate_out_of_bounds_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    fields = {**ADJUSTMENT, field: value}
    if value is ...:
        del fields[field]
    with pytest.raises(BadRecord, match=field):
        rate_from_json(json.dumps(fields).encode())


@of_health
@pytest.mark.parametrize(
    ("field", "value"), [("state", "ill"), ("ts", math.nan), ("components", [{}]), ("ts", ...)]
)
def test_health_out_of_bounds_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    fields = {**STATUS, field: value}
    if value is ...:
        del fields[field]
    with pytest.raises(BadRecord, match=field):
        health_from_json(json.dumps(fields).encode())


@of_feedback
@of_rate
@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"\xff", b'"ok"'])
def test_what_is_no_message_is_refused(value: bytes) -> None:
    with pytest.raises(BadRecord, match="not a feedback event"):
        feedback_from_json(value, 0)
    with pytest.raises(BadRecord, match="not a rate adjustment"):
        rate_from_json(value)
    with pytest.raises(BadRecord, match="not a health status"):
        health_from_json(value)
