"""The messages of Tidegate's own topics as the bytes they are, and what orders the versions of a bar."""

import msgspec
import pytest

from schemas.bar import Bar, bar_key, decode_bar, encode_bar, newer
from schemas.dead_letter import DeadLetter, Reason, decode_dead_letter, encode_dead_letter
from schemas.errors import (
    BadBar,
    BadRecord,
    BadTick,
    SourceError,
    StoreError,
    StoreInUse,
    StoreUnavailable,
    TidegateError,
)
from schemas.feedback import Feedback, Level, decode_feedback, encode_feedback
from schemas.rate import RateAdjustment, decode_rate, encode_rate

BAR = Bar(
    instrument="BINANCE:BTCUSDT",
    symbol="BTCUSDT",
    venue="BINANCE",
    type="1m",
    start_ns=1723161240000000000,
    end_ns=1723161300000000000,
    open="61837.63",
    high="61840",
    low="-37.63",
    close="0",
    volume="0.00000001",
    turnover="-0.0000003763",
    vwap=None,
    trade_count=2,
    buy_volume="0",
    sell_volume="0.00000001",
    first_trade_id="7",
    last_trade_id=None,
    first_offset=10,
    last_offset=12,
    source_topic="md.ticks.v1",
    source_partition=3,
    revision=1,
    final=True,
)


def test_a_bar_is_json_with_the_names_of_its_fields() -> None:
    value = encode_bar(BAR)
    assert value.startswith(
        b'{"instrument":"BINANCE:BTCUSDT","symbol":"BTCUSDT","venue":"BINANCE","type":"1m",'
    )
    assert b'"vwap":null' in value
    assert value.endswith(b'"source_partition":3,"revision":1,"final":true}')
    assert decode_bar(value) == BAR


def test_the_key_of_a_bar_is_one_per_instrument_type_and_start() -> None:
    assert bar_key(BAR) == b"BINANCE:BTCUSDT|1m|1723161240000000000"


@pytest.mark.parametrize(
    ("change", "wins"),
    [
        ({"last_offset": 13, "revision": 0, "final": False}, True),
        ({"revision": 2, "final": False}, True),
        ({"last_offset": 11, "revision": 9}, False),
        ({"revision": 0}, False),
        ({"final": False}, False),
        ({}, False),
    ],
)
def test_the_version_with_the_later_offset_then_revision_then_the_final_one_is_newer(
    change: dict[str, int], wins: bool
) -> None:
    assert newer(msgspec.structs.replace(BAR, **change), BAR) is wins


def test_a_bad_bar_says_which_field() -> None:
    with pytest.raises(BadRecord, match=r"not a bar: .*volume"):
        decode_bar(encode_bar(BAR).replace(b'"volume":"0.00000001"', b'"volume":"-1"', 1))


def test_feedback_is_json_and_may_leave_out_what_has_a_default() -> None:
    feedback = Feedback(
        coordinator_id="store-1",
        queue_size=9,
        capacity=8,
        level=Level.hard,
        ts=1723161240.5,
        partition=3,
        epoch=17,
    )
    assert encode_feedback(feedback) == (
        b'{"coordinator_id":"store-1","queue_size":9,"capacity":8,"level":"hard","source":"store",'
        b'"ts":1723161240.5,"partition":3,"epoch":17,"drain_rate":null,"arrival_rate":null,"dropped":0,'
        b'"scale":null}'
    )
    shortest = (
        b'{"coordinator_id":"store-1","queue_size":9,"capacity":8,"level":"hard","ts":1723161240.5,'
        b'"partition":3,"epoch":17,"unknown":{}}'
    )
    assert decode_feedback(shortest) == feedback


def test_a_rate_adjustment_is_json() -> None:
    adjustment = RateAdjustment(
        provider="binance", scale=0.25, reason=Level.soft, ts=1.5, topic="t", partition=0
    )
    value = encode_rate(adjustment)
    assert value == (
        b'{"provider":"binance","scale":0.25,"reason":"soft","ts":1.5,"topic":"t","partition":0,"coordinator_id":null,"since":null}'
    )
    assert decode_rate(value) == adjustment


def test_a_dead_letter_is_json() -> None:
    reason = Reason.not_a_number
    letter = DeadLetter(
        reason=reason, detail="none", topic="t", partition=1, offset=2, source="a.csv:7", ts=1.5
    )
    value = encode_dead_letter(letter)
    assert value == (
        b'{"reason":"not-a-number","detail":"none","topic":"t","partition":1,"offset":2,"index":0,'
        b'"timestamp_ms":null,"source":"a.csv:7","replayed":null,"ts":1.5}'
    )
    assert decode_dead_letter(value) == letter


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_its_name_with_hyphens(reason: Reason) -> None:
    assert reason.value == reason.name.replace("_", "-")


def test_errors_carry_what_their_readers_need() -> None:
    bad = BadTick(Reason.late, "5 s")
    assert (str(bad), bad.reason, bad.detail, bad.hint) == ("late: 5 s", Reason.late, "5 s", "")
    assert TidegateError("no", hint="try").hint == "try"
    assert str(SourceError("broken", file="a.csv", line=7)) == "a.csv:7: broken"
    assert str(SourceError("no such file", file="a.csv")) == "a.csv: no such file"
    assert BadBar("too large", bar=BAR).bar is BAR
    assert (StoreError.retriable, StoreInUse.retriable, StoreUnavailable.retriable) == (False, False, True)
