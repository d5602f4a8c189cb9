"""The hot path and the public model of a tick accept the same JSON, and give the same trade."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_texts import ANY_JSON, ODD, integers, messages, quoted

from schemas.checks import MAX_COUNT
from schemas.codecs import get_codec
from schemas.errors import BadRecord, BadTick
from schemas.tick import Tick
from schemas.trade import Trade, Trades

decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", fullmatch=True)
sizes = decimals.map(lambda text: text.lstrip("-"))
exponents = st.from_regex(r"[1-9](\.[0-9]{1,3})?[eE][+-]?[0-9]{1,2}", fullmatch=True)
times = integers(10**17, 2**63 - 1)
names = quoted(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|:"), min_size=1, max_size=9)
)

ticks = messages(
    {
        "symbol": names | quoted(st.text(max_size=5)),
        "ts_ns": times,
        "price": decimals | quoted(decimals) | exponents | quoted(exponents),
        "size": sizes | quoted(sizes) | exponents | quoted(exponents),
    },
    {
        "venue": st.just("null") | names | quoted(st.text(max_size=5)),
        "trade_id": st.just("null") | integers(-(2**63), 2**64 - 1) | quoted(st.text(max_size=9)),
        "side": st.sampled_from(["null", '"buy"', '"sell"']),
        "recv_ns": st.just("null") | times,
        "count": st.just("null") | integers(1, MAX_COUNT),
    },
)


def hot(value: bytes, venue: str = "") -> Trade | None:
    try:
        (trade,) = get_codec("tidegate", venue).decode(value)
    except BadTick:
        return None
    return trade


def model(value: bytes) -> Trade | None:
    try:
        return Tick.from_json(value).to_trade()
    except BadRecord:
        return None


@given(ticks)
def test_hot_path_and_model_give_the_same_trade_or_none(value: bytes) -> None:
    assert hot(value) == model(value)


@pytest.mark.parametrize("venue", ["", "X"])
@given(st.lists(ticks, min_size=1, max_size=4))
def test_a_run_of_records_gives_the_trades_that_they_give_one_by_one(venue: str, values: list[bytes]) -> None:
    codec = get_codec("tidegate", venue)
    run = codec.decode_run(values, 0)
    alone = [hot(value, venue) for value in values[: len(run)]]
    try:
        trades = codec.columns(run) if run else Trades.none()
    except BadTick:
        assert None in alone or any(not trade.trade_id for trade in alone)
        return
    fields = (getattr(trades, name) for name in Trades.__struct_fields__)
    assert [Trade(symbol, venue, *rest) for (venue, symbol), *rest in zip(*fields, strict=True)] == alone


@given(ANY_JSON | ODD)
def test_hot_path_and_model_agree_on_any_json(text: str) -> None:
    assert hot(text.encode()) == model(text.encode())


@pytest.mark.parametrize(
    "field", ["symbol", "ts_ns", "price", "size", "venue", "trade_id", "side", "recv_ns", "count"]
)
@given(ODD)
def test_hot_path_and_model_agree_on_every_odd_field(field: str, odd: str) -> None:
    tick = {"symbol": '"X"', "ts_ns": "1723161255342000000", "price": '"1"', "size": '"1"', field: odd}
    value = ("{" + ",".join(f'"{key}":{text}' for key, text in tick.items()) + "}").encode()
    assert hot(value) == model(value)


@given(ticks)
def test_a_tick_that_the_model_writes_is_read_as_the_same_trade(value: bytes) -> None:
    if (trade := model(value)) is not None:
        assert hot(Tick.from_json(value).model_dump_json().encode()) == trade


def test_the_model_keeps_numbers_as_they_are_written() -> None:
    tick = Tick.from_json(
        b'{"symbol":"X","ts_ns":1723161255342000000,"price":0.100000000000000005,"size":1e-8}'
    )
    assert (tick.price, tick.size) == (Decimal("0.100000000000000005"), Decimal("0.00000001"))


def test_the_json_schema_describes_every_field_and_its_examples_are_ticks() -> None:
    schema = Tick.model_json_schema()
    assert schema["required"] == ["symbol", "ts_ns", "price", "size"]
    assert all(field["description"] for field in schema["properties"].values())
    for example in schema["examples"]:
        assert hot(json.dumps(example).encode()) is not None


def test_a_float_is_no_exact_price() -> None:
    with pytest.raises(ValueError, match="decimal string"):
        Tick(symbol="X", ts_ns=1723161255342000000, price=1.5, size="1")  # type: ignore[arg-type]
