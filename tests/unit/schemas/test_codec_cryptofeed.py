import pytest

from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.trade import Trade

decode = get_codec("cryptofeed").decode

TRADE = (
    b'{"exchange":"COINBASE","symbol":"BTC-USD","side":"buy","amount":1.2,"price":64342.12,"id":"23454323",'
    b'"type":"limit","timestamp":1634865952.143,"receipt_timestamp":1634865952.2}'
)
BTC = Trade(
    "BTC-USD",
    "COINBASE",
    1634865952143000000,
    parse("64342.12"),
    parse("1.2"),
    "23454323",
    1,
    1,
    1634865952200000000,
)


def test_float_seconds_become_ns_exactly_and_the_exchange_is_the_venue() -> None:
    assert decode(TRADE) == (BTC,)


def test_the_configured_venue_wins() -> None:
    assert get_codec("cryptofeed", "CB").decode(TRADE)[0].venue == "CB"


def test_numbers_may_be_strings() -> None:
    assert decode(TRADE.replace(b"1.2,", b'"1.20",').replace(b"64342.12", b'"64342.12"')) == (BTC,)


def test_small_floats_come_with_an_exponent() -> None:
    (trade,) = decode(TRADE.replace(b"64342.12", b"8.17e-06"))
    assert trade.price == parse("0.00000817")


@pytest.mark.parametrize(
    "field", [b'"id":"23454323"', b'"type":"limit"', b'"side":"buy"', b'"receipt_timestamp":1634865952.2']
)
def test_id_type_side_and_receipt_may_be_null(field: bytes) -> None:
    name = field.partition(b":")[0]
    (trade,) = decode(TRADE.replace(field, name + b":null"))
    unknown = {b'"id"': trade.trade_id, b'"side"': trade.side or None, b'"receipt_timestamp"': trade.recv_ns}
    assert unknown.get(name) is None


def test_a_message_without_receipt_is_a_trade() -> None:
    assert decode(TRADE.replace(b',"receipt_timestamp":1634865952.2', b""))[0].recv_ns is None


@pytest.mark.parametrize(
    "value",
    [
        b'{"exchange":"COINBASE","symbol":"BTC-USD","bid":1.0,"ask":1.1,"timestamp":1634865952.1}',
        b'{"exchange":"COINBASE","symbol":"BTC-USD","book":{"bid":{},"ask":{}},"timestamp":1634865952.1}',
        b'{"exchange":"X","symbol":"B","side":"buy","quantity":1,"price":1,"id":null,"status":"filled","timestamp":1.0}',
    ],
)
def test_other_channels_carry_no_trade(value: bytes) -> None:
    assert decode(value) == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"foo":1}', Reason.malformed),
        (b"[]", Reason.malformed),
        (b"5", Reason.malformed),
        (TRADE.replace(b'"amount":1.2,', b""), Reason.malformed),
        (TRADE.replace(b'"buy"', b'"BUY"'), Reason.malformed),
        (TRADE.replace(b"64342.12", b"NaN"), Reason.malformed),
        (TRADE.replace(b"64342.12", b"null"), Reason.not_a_number),
        (TRADE.replace(b"64342.12", b"[1]"), Reason.not_a_number),
        (TRADE.replace(b"1.2,", b"-1.2,"), Reason.negative_size),
        (TRADE.replace(b"1634865952.143", b"true"), Reason.not_a_number),
        (TRADE.replace(b"1634865952.143", b"1e999"), Reason.out_of_range),
        (TRADE.replace(b"1634865952.143", b"1634865952143"), Reason.out_of_range),
        (TRADE.replace(b"1634865952.2", b"0.5"), Reason.out_of_range),
        (TRADE.replace(b"BTC-USD", b""), Reason.bad_symbol),
    ],
)
def test_a_bad_message_says_why(value: bytes, reason: Reason) -> None:
    with pytest.raises(BadTick) as caught:
        decode(value)
    assert caught.value.reason == reason, caught.value.detail
