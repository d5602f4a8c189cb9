"""Ticks and bars in Avro: exact, and garbage is refused."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bar import Bar, decode_bar, encode_bar
from schemas.codecs import get_codec
from schemas.errors import BadRecord, BadTick, RegistryError
from schemas.fixed import parse
from streams.registry.avro import bar_reader, bar_schema, bar_writer, tick_reader
from support.store_contract import a_bar

NOW_NS = 1_723_161_255_342_000_000


def schema(**fields: Any) -> dict[str, Any]:
    """A record with the fields of a tick that must be there, and others."""
    plain = {"symbol": "string", "ts_ns": "long", "price": "string", "size": "string"}
    made = [{"name": name, "type": kind} for name, kind in {**plain, **fields}.items() if kind]
    return {"type": "record", "name": "Tick", "namespace": "test", "fields": made}


def written(by: dict[str, Any], **changes: Any) -> bytes:
    out = io.BytesIO()
    record = {"symbol": "A", "ts_ns": NOW_NS, "price": "1.5", "size": "2", **changes}
    fastavro.schemaless_writer(out, fastavro.parse_schema(by), record)
    return out.getvalue()


def read(by: dict[str, Any], **changes: Any) -> Any:
    (trade,) = get_codec("tidegate").decode(tick_reader(json.dumps(by))(written(by, **changes)))
    return trade


def decimal(precision: int, scale: int, **more: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale, **more}


@given(st.integers(-(10**36) + 1, 10**36 - 1), st.sampled_from(["bytes", "fixed", "union", "string"]))
def test_a_price_of_36_digits_is_read_to_the_last_of_them(units: int, form: str) -> None:
    # Not scaleb: the context rounds at 28 digits.
    price = Decimal((int(units < 0), tuple(map(int, str(abs(units)))), -18))
    fixed = {
        "type": "fixed",
        "name": "Price",
        "size": 16,
        "logicalType": "decimal",
        "precision": 36,
        "scale": 18,
    }
    kinds: dict[str, Any] = {
        "bytes": decimal(36, 18),
        "fixed": fixed,
        "union": ["null", decimal(36, 18)],
        "string": "string",
    }
    given_price: Any = f"{price:f}" if form == "string" else price
    assert read(schema(price=kinds[form]), price=given_price).price == units


def test_a_decimal_of_more_digits_than_its_schema_declares_is_not_rounded() -> None:
    wide, narrow = schema(price=decimal(30, 2)), schema(price=decimal(4, 2))
    payload = written(wide, price=Decimal("12345678901234567.89"))
    (trade,) = get_codec("tidegate").decode(tick_reader(json.dumps(narrow))(payload))
    assert trade.price == parse("12345678901234567.89")


@pytest.mark.parametrize(
    ("logical", "stored"),
    [
        (None, NOW_NS),
        ("timestamp-millis", NOW_NS // 10**6),
        ("timestamp-micros", NOW_NS // 10**3),
        ("timestamp-nanos", NOW_NS),
    ],
)
def test_times_are_ns_or_timestamps_of_any_unit(logical: str | None, stored: int) -> None:
    kind = {"type": "long", "logicalType": logical} if logical else "long"
    plain = schema(recv_ns=["null", "long"])
    payload = written(plain, ts_ns=stored, recv_ns=stored)
    told = json.dumps(schema(ts_ns=kind, recv_ns=["null", kind]))
    (trade,) = get_codec("tidegate").decode(tick_reader(told)(payload))
    assert (trade.ts_ns, trade.recv_ns) == (NOW_NS, NOW_NS)


def test_optional_fields_may_be_null_absent_or_given_and_others_are_passed_over() -> None:
    sides = {"type": "enum", "name": "Side", "symbols": ["buy", "sell"]}
    full = schema(
        venue=["null", "string"],
        trade_id=["null", "long", "string"],
        side=["null", sides],
        count=["null", "int"],
        other={"type": "map", "values": "double"},
    )
    trade = read(full, venue="V", trade_id="x1", side="sell", count=3, other={"a": 0.1})
    assert (trade.venue, trade.trade_id, trade.side, trade.count) == ("V", "x1", -1, 3)
    trade = read(full, venue=None, trade_id=12, side=None, count=None, other={})
    assert (trade.venue, trade.trade_id, trade.side, trade.count) == ("", 12, 0, 1)
    assert read(schema()).trade_id is None


def test_a_type_that_is_named_once_is_known_by_its_name_later() -> None:
    money = {
        "type": "fixed",
        "name": "Money",
        "size": 12,
        "logicalType": "decimal",
        "precision": 20,
        "scale": 8,
    }
    trade = read(schema(price=money, size="Money"), price=Decimal("1.25"), size=Decimal("0.5"))
    assert (trade.price, trade.size) == (parse("1.25"), parse("0.5"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON"),
        ('"string"', "no record"),
        ('{"type": "record", "name": "Tick"}', "no record with fields"),
        ('{"type": "record", "name": "Tick", "fields": [{"name": "price"}]}', "no Avro"),
        ('{"type": "record", "name": 5, "fields": [1]}', "no Avro"),
        ("[" * 10_000, "no JSON"),
        (json.dumps(schema(price=None)), "no field price"),
        (json.dumps(schema(price="double")), "price is a double, which is not exact"),
        (json.dumps(schema(size=["null", "float"])), "size is a float, which is not exact"),
        (json.dumps(schema(price=["string", decimal(9, 2), "bytes"])), "price is of type 'bytes'"),
        (json.dumps(schema(price=[decimal(9, 2), {"type": "fixed", "name": "F", "size": 9, "logicalType": "decimal",
                                                  "precision": 9, "scale": 3}])), "mean different things"),
        (json.dumps(schema(symbol={"type": "nonsense"})), "nonsense"),
        (json.dumps(schema(extra="nonsense")), "no Avro"),
    ],
)  # fmt: skip
def test_a_schema_that_no_tick_can_be_read_by_says_why(text: str, why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        tick_reader(text)


FULL = schema(
    price=decimal(18, 4), trade_id=["null", "long", "string"], tags={"type": "array", "items": "string"}
)
_read_full = tick_reader(json.dumps(FULL))


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_record_or_a_message_that_the_codec_judges(garbage: bytes) -> None:
    try:
        message = _read_full(garbage)
    except BadRecord:
        return
    try:
        trades = get_codec("tidegate").decode(message)
    except BadTick:
        return
    assert all(trade.symbol for trade in trades)


@given(st.data())
def test_a_payload_that_is_cut_off_or_too_long_is_no_tick(data: st.DataObject) -> None:
    payload = written(FULL, price=Decimal("1.5"), trade_id=5, tags=["a", "b"])
    length = data.draw(st.integers(0, len(payload) - 1))
    for bad in (payload[:length], payload + b"\0"):
        with pytest.raises(BadRecord, match="not Avro of its schema"):
            _read_full(bad)


BARS = st.builds(
    a_bar,
    revision=st.integers(0, 2**63 - 1),
    vwap=st.sampled_from([None, "0.000000000000000001", "99999999999999999.25"]),
    first_trade_id=st.one_of(st.none(), st.from_regex(r"[a-zé0-9]{1,9}", fullmatch=True)),
    final=st.booleans(),
)


@given(BARS)
def test_a_bar_comes_back_from_avro_as_it_was(bar: Bar) -> None:
    back = bar_reader(bar_schema())(bar_writer()(bar))
    assert back == bar
    assert decode_bar(encode_bar(back)) == bar


@given(st.binary(max_size=300))
def test_garbage_is_no_bar(garbage: bytes) -> None:
    with pytest.raises(BadRecord):
        bar_reader(bar_schema())(garbage)


def test_a_bar_that_somebody_wrote_by_a_wider_schema_is_read() -> None:
    wider = json.loads(bar_schema())
    wider["fields"].append({"name": "colour", "type": "string"})
    out = io.BytesIO()
    bar = a_bar()
    record = msgspec.structs.asdict(bar) | {"colour": "red"}
    fastavro.schemaless_writer(out, fastavro.parse_schema(wider), record)
    assert bar_reader(json.dumps(wider))(out.getvalue()) == bar
