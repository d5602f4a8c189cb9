"""The struct and the public model of every message of Tidegate's own topics accept the same JSON."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_texts import ANY_JSON, ODD, integers, messages, quoted

from schemas.bar import decode_bar
from schemas.contracts import SCHEMAS
from schemas.control import decode_audit, decode_control
from schemas.dead_letter import Reason, decode_dead_letter
from schemas.errors import BadRecord
from schemas.feedback import Level, decode_feedback
from schemas.rate import decode_rate
from schemas.wire import Contract

Agreement = tuple[Callable[[bytes | None], Any], type[Contract]]

words = quoted(
    st.text(st.characters(exclude_categories=["C"], exclude_characters="|"), min_size=1, max_size=9)
)
naturals = integers(0, 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False).map(repr)
positive = floats.map(lambda text: text.lstrip("-"))
nothing = st.just("null")
decimals = quoted(st.from_regex(r"-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,36})?", fullmatch=True))
amounts = decimals.map(lambda text: text.replace("-", ""))
levels = quoted(st.sampled_from(list(Level)))

bars = messages(
    {
        **dict.fromkeys(["instrument", "symbol", "venue", "source_topic"], words),
        "type": quoted(st.from_regex(r"[1-9][0-9]?[smhd]", fullmatch=True)),
        **dict.fromkeys(["start_ns", "end_ns", "first_offset", "last_offset", "source_partition"], naturals),
        **dict.fromkeys(["trade_count", "revision"], naturals),
        **dict.fromkeys(["open", "high", "low", "close", "turnover"], decimals),
        **dict.fromkeys(["volume", "buy_volume", "sell_volume"], amounts),
        "vwap": nothing | decimals,
        **dict.fromkeys(["first_trade_id", "last_trade_id"], nothing | words),
        "final": st.sampled_from(["true", "false"]),
    },
    {},
)
feedbacks = messages(
    {
        "coordinator_id": words,
        "queue_size": naturals,
        "capacity": integers(1, 2**63 - 1),
        "level": levels,
        "ts": floats | integers(0, 2**64),
        "partition": naturals,
        "epoch": naturals,
    },
    {
        "source": words,
        "drain_rate": nothing | positive,
        "dropped": naturals,
        "scale": nothing | st.floats(0, 1).map(repr),
    },
)
rates = messages(
    {"provider": words, "scale": st.floats(0, 1).map(repr), "reason": levels, "ts": floats},
    {
        "topic": nothing | words,
        "partition": nothing | naturals,
        "coordinator_id": nothing | words,
        "since": nothing | floats,
    },
)
letters = messages(
    {
        "reason": quoted(st.sampled_from(list(Reason))),
        **dict.fromkeys(["detail", "topic"], words),
        **dict.fromkeys(["partition", "offset"], naturals),
        "ts": floats,
    },
    {
        "index": naturals,
        "timestamp_ms": nothing | integers(-1, 2**63),
        "source": nothing | words,
        "replayed": nothing | words,
    },
)

BAR: Agreement = (decode_bar, SCHEMAS["bar"])
FEEDBACK: Agreement = (decode_feedback, SCHEMAS["feedback"])
RATE: Agreement = (decode_rate, SCHEMAS["rate"])
LETTER: Agreement = (decode_dead_letter, SCHEMAS["dead-letter"])
CONTROL: Agreement = (decode_control, SCHEMAS["control"])
AUDIT: Agreement = (decode_audit, SCHEMAS["control-audit"])


def assert_agree(agreement: Agreement, value: bytes) -> None:
    decode, model = agreement
    try:
        struct = msgspec.to_builtins(decode(value))
    except BadRecord:
        struct = None
    try:
        contract = model.from_json(value).model_dump(mode="json")
    except BadRecord:
        contract = None
    assert struct == contract


@given(bars)
def test_bar_and_model_agree(value: bytes) -> None:
    assert_agree(BAR, value)


@given(feedbacks)
def test_feedback_and_model_agree(value: bytes) -> None:
    assert_agree(FEEDBACK, value)


@given(rates)
def test_rate_adjustment_and_model_agree(value: bytes) -> None:
    assert_agree(RATE, value)


@given(letters)
def test_dead_letter_and_model_agree(value: bytes) -> None:
    assert_agree(LETTER, value)


@pytest.mark.parametrize(
    "agreement",
    [BAR, FEEDBACK, RATE, LETTER, CONTROL, AUDIT],
    ids=["bar", "feedback", "rate", "letter", "control", "audit"],
)
@given(ANY_JSON | ODD)
def test_struct_and_model_agree_on_any_json(agreement: Agreement, text: str) -> None:
    assert_agree(agreement, text.encode())


@pytest.mark.parametrize(
    "agreement",
    [BAR, FEEDBACK, RATE, LETTER, CONTROL, AUDIT],
    ids=["bar", "feedback", "rate", "letter", "control", "audit"],
)
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"{", b"[" * 100_000, b'{"topic":"\xff"}'])
def test_what_is_no_json_is_a_bad_record(agreement: Agreement, value: bytes | None) -> None:
    with pytest.raises(BadRecord):
        agreement[0](value)
    if value is not None:
        with pytest.raises(BadRecord):
            agreement[1].from_json(value)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_model_has_a_json_schema_that_describes_all_its_fields(name: str) -> None:
    schema = SCHEMAS[name].model_json_schema()
    assert schema["description"]
    assert all(field.get("description") for field in schema["properties"].values())
