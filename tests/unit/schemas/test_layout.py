"""Records that are read as columns: exactly what the JSON decoder reads, or not at all."""

import json
from contextlib import suppress
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tick_agreement import ticks

from schemas.codecs import get_codec
from schemas.codecs.layout import UNIT, Columns, Layout, NotSo
from schemas.codecs.roster import Roster
from schemas.errors import BadTick
from schemas.trade import Trade

TICK = {
    "symbol": "BTCUSDT",
    "venue": "SIM",
    "ts_ns": 1723161255342000000,
    "price": "61837.63",
    "size": "0.5",
    "trade_id": 77,
    "side": "buy",
    "count": 3,
    "recv_ns": 1723161255342000001,
}


def record(**fields: object) -> bytes:
    tick = {name: value for name, value in (TICK | fields).items() if value is not ...}
    return json.dumps(tick, separators=(",", ":"), ensure_ascii=False).encode()


def read(records: list[bytes], layout: Layout | None = None) -> list[Trade]:
    """As columns, made into trades again. Raises NotSo."""
    return trades_of((layout or Layout(records[0])).columns(records, Roster("")))


def trades_of(columns: Columns) -> list[Trade]:
    count = len(columns.code)
    names = columns.names(np.arange(count))
    ids = [None] * count if columns.trade_id is None else list(columns.trade_id)
    return [
        Trade(
            symbol=names[i][1],
            venue=names[i][0],
            ts_ns=int(columns.ts_ns[i]),
            price=int(columns.price[i]) * UNIT,
            size=int(columns.size[i]) * UNIT,
            trade_id=ids[i] if ids[i] is None or isinstance(ids[i], str) else int(ids[i]),
            side=0 if columns.side is None else int(columns.side[i]),
            count=1 if columns.count is None else int(columns.count[i]),
            recv_ns=None if columns.recv_ns is None else int(columns.recv_ns[i]),
        )
        for i in range(count)
    ]


def decoded(records: list[bytes], venue: str = "") -> list[Trade]:
    codec = get_codec("tidegate", venue)
    return [trade for value in records for trade in codec.decode(value)]


def test_what_is_laid_out_alike_is_read() -> None:
    records = [
        record(),
        record(symbol="ETHUSDT", side="sell", price="0.00000001", trade_id=2**62),
        record(size="0"),
    ]
    assert read(records) == decoded(records)


@pytest.mark.parametrize("left_out", ["venue", "trade_id", "side", "count", "recv_ns"])
def test_what_may_be_left_out_may_be_left_out(left_out) -> None:
    records = [record(**{left_out: ...}), record(**{left_out: ...}, symbol="X")]
    assert read(records) == decoded(records)


@pytest.mark.parametrize(
    "fields",
    [
        {"price": "01.5"},
        {"price": "1."},
        {"price": ".5"},
        {"price": "+1"},
        {"price": "1e5"},
        {"price": "-1"},
        {"price": ""},
        {"price": "1.2.3"},
        {"price": "1_0"},
        {"price": "0x1"},
        {"price": "NaN"},
        {"price": " 1"},
        {"price": "1.1234567891"},
        {"price": "9" * 19},
        {"price": 61837.63},
        {"size": "-1"},
        {"ts_ns": -1},
        {"ts_ns": 1.5},
        {"ts_ns": 2**63},
        {"ts_ns": "1723161255342000000"},
        {"trade_id": "x"},
        {"trade_id": None},
        {"side": None},
        {"side": "Buy"},
        {"count": None},
        {"symbol": 'a"b'},
        {"symbol": "a\\b"},
        {"symbol": "a\nb"},
        {"more": 1},
        {"venue": ...},
    ],
    ids=str,
)
def test_one_that_is_not_alike_is_left_to_the_decoder(fields) -> None:
    with pytest.raises(NotSo):
        read([record(), record(**fields), record()])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"null",
        b"\xef\xbb\xbf" + record(),
        record() + b" ",
        record() + record(),
        record()[:-1],
        record() + b"\n",
        record().replace(b"BTC", b"\xff\xfe\xfd"),
        record().replace(b'"side":"buy"', b'"side":"buy","side":"buy"'),
        record().replace(b":77", b":077"),
        record().replace(b":77", b":7 7"),
        record().replace(b'{"symbol"', b'[{"symbol"'),
    ],
    ids=repr,
)
def test_what_is_no_such_record_is_left_to_the_decoder(value) -> None:
    with pytest.raises(NotSo):
        read([record(), value, record()])


def test_a_record_without_a_value_is_left_to_the_decoder() -> None:
    with pytest.raises(NotSo):
        Layout(record()).columns([record(), None], Roster(""))


@pytest.mark.parametrize("value", [b"", b"{}", b"rubbish", record(symbol="a\\b"), record()[:-2]], ids=repr)
def test_of_a_record_that_is_no_good_one_no_layout_is_learnt(value) -> None:
    codec = get_codec("tidegate", "")
    assert codec.read_columns([value, value]) is None
    assert codec.read_columns([record(), record()]) is not None


def test_two_spellings_of_one_instrument_are_left_to_the_decoder() -> None:
    assert len(read([record(venue="V", symbol="W:A"), record(venue="V", symbol="A")])) == 2
    with pytest.raises(NotSo):
        read([record(venue="V", symbol="W:A"), record(venue="V:W", symbol="A")])


texts = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\', min_codepoint=32), min_size=1, max_size=8
)
numbers = st.decimals(min_value=0, max_value=10**9, places=9, allow_nan=False).map(
    lambda number: f"{number:f}".rstrip("0").rstrip(".") or "0"
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "symbol": texts,
                "price": numbers,
                "size": numbers,
                "ts_ns": st.integers(10**18, 2**62),
                "trade_id": st.integers(0, 2**62),
                "side": st.sampled_from(["buy", "sell"]),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_it_reads_what_the_decoder_reads(ticks) -> None:
    records = [record(**tick) for tick in ticks]
    try:
        expected = decoded(records)
    except BadTick:
        return  # a symbol that cannot be used: the codec looks at those, not the layout
    assert read(records) == expected


PIECES = [b'"', b",", b":", b"0", b".", b"-", b"e", b"}"]


@settings(max_examples=1000)
@given(
    st.integers(0, len(record()) - 1),
    st.integers(0, 2),
    st.one_of(st.binary(max_size=2), st.sampled_from(PIECES)),
)
def test_a_record_that_was_tampered_with_is_read_as_the_decoder_does_or_not_at_all(at, cut, piece) -> None:
    records = [record(), record()[:at] + piece + record()[at + cut :]]
    try:
        found = read(records, Layout(record()))
    except NotSo:
        return
    try:
        expected = decoded(records)
    except BadTick:
        expected = None  # for a reason that the codec looks for in columns, too
    if expected is None:
        assert get_codec("tidegate", "").read_columns(records) is None
    else:
        assert found == expected


def assert_read_as_decoded_or_not_at_all(records: list[bytes], known: bytes, venue: str = "") -> None:
    codec = get_codec("tidegate", venue)
    codec.read_columns([known])
    columns = codec.read_columns(records)
    if columns is not None:
        assert trades_of(columns) == decoded(records, venue)


WRONG = [b"", b"0", b".", b"-", b'"', b" ", b"\x7f", b"\xff"]


@pytest.mark.parametrize("venue", ["", "X"])
def test_a_record_with_any_byte_gone_wrong_is_read_as_the_decoder_does_or_not_at_all(venue) -> None:
    good = record()
    layout = Layout(good)
    for at in range(len(good)):
        for byte in WRONG:
            records = [good, good[:at] + byte + good[at + 1 :]]
            with suppress(NotSo):
                layout.columns(records, Roster(venue))
                assert_read_as_decoded_or_not_at_all(records, good, venue)


@pytest.mark.parametrize("venue", ["", "X"])
@given(ticks, ticks)
def test_any_json_is_read_as_the_decoder_does_or_not_at_all(venue, value, other) -> None:
    assert_read_as_decoded_or_not_at_all([value], value, venue)
    assert_read_as_decoded_or_not_at_all([value], other, venue)
    assert_read_as_decoded_or_not_at_all([value, other], value, venue)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\xfe\xff", b" ", b"\t", b"\r", b"\0", b"\x1e"])
def test_what_stands_before_a_record_is_not_passed_over(at, before) -> None:
    records = [record(), record()]
    records[at] = before + records[at]
    assert_read_as_decoded_or_not_at_all(records, record())


@pytest.mark.parametrize("field", ["symbol", "venue", "side", "trade_id", "unknown"])
@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"], ids=repr
)
@pytest.mark.parametrize("venue", ["", "X"])
def test_what_is_no_utf8_is_left_to_the_decoder(field, text, venue) -> None:
    good = record(**{field: "ok" if field != "side" else "buy"})
    wrong = good.replace(b'"ok"' if field != "side" else b'"buy"', b'"' + text + b'"')
    assert_read_as_decoded_or_not_at_all([wrong], good, venue)
    assert_read_as_decoded_or_not_at_all([wrong], wrong, venue)


@pytest.mark.parametrize(
    ("name", "value"),
    [("venue", "X"), ("trade_id", "7"), ("trade_id", 7), ("side", "sell"), ("count", 7), ("recv_ns", 10**18)],
)
@pytest.mark.parametrize(
    "nested",
    [lambda name, value: {name: value, "y": None}, lambda name, value: [{"y": "z", name: value, "x": 1}]],
    ids=["object", "list"],
)
def test_what_is_deeper_in_a_record_is_not_its_own(name, value, nested) -> None:
    inner = nested(name, value)
    for fields in ({name: ..., "more": inner}, {"more": inner}):
        good = record(**fields)
        assert_read_as_decoded_or_not_at_all([good, good], good)


@pytest.mark.parametrize(
    "price", ["9223372036.854775807", "1.123456789000", "0", "0.0", "0.000000001", "9999999999", "0" * 19]
)
def test_numbers_at_the_limits_are_exact_or_left_to_the_decoder(price) -> None:
    for records in ([record(price=price)], [record(size=price)], [record(), record(price=price, size=price)]):
        assert_read_as_decoded_or_not_at_all(records, record())


@pytest.mark.parametrize(
    "fields",
    [
        {"symbol": "Ä☃𝄞"},
        {"symbol": "a" * 128},
        {"symbol": "a" * 129},
        {"symbol": "a|b"},
        {"symbol": ""},
        {"symbol": "a\x7f"},
        {"venue": ""},
        {"venue": "a:b"},
        {"venue": "a" * 65},
        {"ts_ns": 10**17 - 1},
        {"ts_ns": 2**63 - 1},
        {"ts_ns": 2**63},
        {"recv_ns": 10**17 - 1},
        {"recv_ns": 2**63},
        {"count": 0},
        {"count": 2**31 - 1},
        {"count": 2**31},
        {"trade_id": 2**63},
        {"trade_id": 2**64},
    ],
    ids=str,
)
@pytest.mark.parametrize("venue", ["", "X"])
def test_what_the_decoder_refuses_is_not_read(fields, venue) -> None:
    assert_read_as_decoded_or_not_at_all([record(**fields)], record(), venue)
    assert_read_as_decoded_or_not_at_all([record(), record(**fields)], record(), venue)


@pytest.mark.parametrize("text", ["", "1", "a" * 128, "a" * 129, "é" * 128, "a\x7fb", "☃"])
def test_ids_that_are_text_are_those_that_the_decoder_reads(text) -> None:
    assert_read_as_decoded_or_not_at_all([record(trade_id="1"), record(trade_id=text)], record(trade_id="1"))


def test_a_layout_is_learnt_anew_where_the_producer_writes_otherwise() -> None:
    codec = get_codec("tidegate", "")
    turned = json.dumps(dict(reversed(TICK.items())), separators=(", ", ": ")).encode()
    for records in ([record(), record()], [turned, turned], [record(side=...)], [record()]):
        columns = codec.read_columns(records)
        assert columns is not None
        assert trades_of(columns) == decoded(records)
    assert codec.read_columns([record(), turned]) is None
    assert codec.read_columns([turned, record()]) is None
    assert codec.read_columns([turned, turned]) is not None


def test_where_no_batch_is_of_one_layout_few_are_tried_until_one_is() -> None:
    codec = get_codec("tidegate", "")
    mixed = [record(), record(side=...)]
    with mock.patch.object(Layout, "columns", autospec=True, side_effect=Layout.columns) as tried:
        for _ in range(1000):
            assert codec.read_columns(mixed) is None
    assert tried.call_count < 50
    found = [codec.read_columns([record(), record()]) is not None for _ in range(200)]
    first = found.index(True)
    assert first < 64
    assert all(found[first:])
