"""What is paused, as a function of the log of what operators asked."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import (
    Action,
    AuditModel,
    Control,
    ControlModel,
    control_key,
    decode_audit,
    decode_control,
    encode_audit,
    encode_control,
)
from schemas.errors import BadRecord
from streams.orders import Orders

pytestmark = pytest.mark.covers("control")

HERE, THERE = "a:1", "b:2"


def asked(
    action: str, role: str = "bars", partition: int | None = None, worker: str | None = None
) -> Control:
    fields: dict[str, Any] = {"id": "1", "actor": "me@here", "ts": 5.0}
    return Control(action=Action(action), role=role, partition=partition, worker=worker, **fields)  # type: ignore[arg-type]


def paused(*log: Control, worker: str = HERE, role: str = "bars") -> list[int]:
    orders = Orders()
    for offset, control in enumerate(log):
        orders.take(control, offset)
    return [p for p in range(4) if orders.pause_of(role, p, worker) is not None]


def test_nothing_is_paused_until_somebody_asks() -> None:
    assert paused() == []


@pytest.mark.parametrize(
    ("log", "here", "there"),
    [
        ([asked("pause")], [0, 1, 2, 3], [0, 1, 2, 3]),
        ([asked("pause"), asked("resume")], [], []),
        ([asked("pause", partition=2)], [2], [2]),
        ([asked("pause", partition=2), asked("resume")], [], []),
        ([asked("pause"), asked("resume", partition=2)], [0, 1, 3], [0, 1, 3]),
        ([asked("resume", partition=2), asked("pause")], [0, 1, 2, 3], [0, 1, 2, 3]),
        ([asked("pause", worker=THERE)], [], [0, 1, 2, 3]),
        ([asked("pause"), asked("resume", worker=HERE)], [], [0, 1, 2, 3]),
        ([asked("pause", partition=1, worker=HERE), asked("resume", partition=1)], [], []),
        ([asked("pause", role="store")], [], []),
        ([asked("pause"), asked("reload")], [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_the_last_word_about_a_partition_counts(
    log: list[Control], here: list[int], there: list[int]
) -> None:
    assert (paused(*log), paused(*log, worker=THERE)) == (here, there)


CONTROLS = st.builds(
    asked,
    st.sampled_from(["pause", "resume"]),
    st.just("bars"),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([None, HERE, THERE]),
)


@given(st.lists(CONTROLS, max_size=12), st.randoms(use_true_random=False))
def test_compaction_repetition_and_order_change_nothing(log: list[Control], shuffled: random.Random) -> None:
    whole, other = Orders(), Orders()
    for offset, control in enumerate(log):
        whole.take(control, offset)
    kept = {control_key(control): (offset, control) for offset, control in enumerate(log)}
    records = [*kept.values(), *kept.values()]
    shuffled.shuffle(records)
    for offset, control in records:
        other.take(control, offset)
    for worker in (HERE, THERE):
        for partition in range(3):
            assert whole.pause_of("bars", partition, worker) == other.pause_of("bars", partition, worker)
    assert whole.pauses() == other.pauses()


def test_what_holds_is_listed_without_what_was_ended() -> None:
    orders = Orders()
    log = [asked("pause", partition=1), asked("pause", "store"), asked("resume"), asked("pause", partition=3)]
    for offset, control in enumerate(log):
        orders.take(control, offset)
    assert orders.pauses() == [log[1], log[3]]


def test_a_reload_takes_no_pauses_place_in_a_compacted_log() -> None:
    assert control_key(asked("reload")) != control_key(asked("pause"))
    assert (
        control_key(asked("resume", partition=3))
        == control_key(asked("pause", partition=3))
        == b"bars|flow|3|*"
    )


ANSWER = {
    "id": "1",
    "action": "pause",
    "actor": "me@here",
    "role": "operator",
    "target": "bars",
    "partition": 2,
    "worker": HERE,
    "result": {"status": "ok", "detail": "done"},
    "ts": 5.0,
}


@pytest.mark.parametrize(
    "change",
    [{"action": "stop"}, {"role": "all"}, {"partition": -1}, {"actor": ""}, {"worker": ""}, {"id": None}, {}],
)
def test_an_action_is_read_by_both_models_or_by_none(change: dict[str, Any]) -> None:
    value = json.dumps({**json.loads(encode_control(asked("pause", partition=1))), **change}).encode()
    if not change:
        assert msgspec.to_builtins(decode_control(value)) == ControlModel.from_json(value).model_dump(
            mode="json"
        )
        return
    for read in (decode_control, ControlModel.from_json):
        with pytest.raises(BadRecord):
            read(value)


@pytest.mark.parametrize(
    "change", [{"result": {"status": "maybe"}}, {"target": "all"}, {"worker": None}, {"result": None}, {}]
)
def test_an_answer_is_read_by_both_models_or_by_none(change: dict[str, Any]) -> None:
    value = json.dumps({**ANSWER, **change}).encode()
    if not change:
        assert msgspec.to_builtins(decode_audit(value)) == AuditModel.from_json(value).model_dump(mode="json")
        assert encode_audit(decode_audit(value)) == value.replace(b": ", b":").replace(b", ", b",")
        return
    for read in (decode_audit, AuditModel.from_json):
        with pytest.raises(BadRecord):
            read(value)


def test_garbage_is_a_bad_record() -> None:
    for decode in (decode_control, decode_audit):
        for value in (None, b"", b"garbage", b"[]"):
            with pytest.raises(BadRecord):
                decode(value)
