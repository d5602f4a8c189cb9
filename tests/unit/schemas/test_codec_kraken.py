import pytest

from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.trade import Trade

decode = get_codec("kraken", "KRAKEN").decode

V2 = (
    b'{"channel":"trade","type":"update","data":['
    b'{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,'
    b'"timestamp":"2023-10-06T17:35:55.440295Z"},'
    b'{"symbol":"BTC/USD","side":"sell","price":105910.50,"qty":0.00012460,"ord_type":"market","trade_id":10218209,'
    b'"timestamp":"2023-10-06T17:35:56.123456789Z"}]}'
)
V1 = (
    b'[337,[["5541.20000","0.15850568","1534614057.321597","s","l",""],'
    b'["6060.00000","0.02455000","1534614057.324998","b","l",""]],"trade","XBT/USD"]'
)
FUTURES = (
    b'{"feed":"trade","product_id":"PI_XBTUSD","uid":"05af78ac-a774-478c-a50c-8b9c234e071e","side":"sell",'
    b'"type":"fill","seq":653355,"time":1612266317519,"qty":15000,"price":34969.5}'
)
SNAPSHOT = (
    b'{"feed":"trade_snapshot","product_id":"PI_XBTUSD","trades":['
    b'{"feed":"trade","product_id":"PI_XBTUSD","uid":"caa9","side":"sell","type":"fill","seq":655508,'
    b'"time":1612269657781,"qty":440,"price":34893},'
    b'{"feed":"trade","product_id":"PI_XBTUSD","uid":"45ee","side":"buy","type":"fill","seq":655507,'
    b'"time":1612269656839,"qty":9643,"price":34891}]}'
)


@pytest.mark.parametrize("kind", [b"update", b"snapshot"])
def test_v2_numbers_are_exact_and_the_side_is_the_takers(kind: bytes) -> None:
    assert decode(V2.replace(b"update", kind)) == [
        Trade("BTC/USD", "KRAKEN", 1696613755440295000, parse("105944.2"), parse("0.00027625"), 10218208, 1),
        Trade("BTC/USD", "KRAKEN", 1696613756123456789, parse("105910.5"), parse("0.0001246"), 10218209, -1),
    ]


def test_v1_has_no_trade_ids() -> None:
    assert decode(V1) == [
        Trade("XBT/USD", "KRAKEN", 1534614057321597000, parse("5541.2"), parse("0.15850568"), None, -1),
        Trade("XBT/USD", "KRAKEN", 1534614057324998000, parse("6060"), parse("0.02455"), None, 1),
    ]


def test_a_futures_trade_is_read() -> None:
    uid = "05af78ac-a774-478c-a50c-8b9c234e071e"
    assert decode(FUTURES) == (
        Trade("PI_XBTUSD", "KRAKEN", 1612266317519000000, parse("34969.5"), parse("15000"), uid, -1),
    )


def test_a_futures_snapshot_comes_oldest_first() -> None:
    assert [trade.trade_id for trade in decode(SNAPSHOT)] == ["45ee", "caa9"]


@pytest.mark.parametrize(
    "value",
    [
        b'{"event":"heartbeat"}',
        b'{"connectionID":17843232920108168701,"event":"systemStatus","status":"online","version":"1.8.3"}',
        b'{"event":"subscribed","feed":"trade","product_ids":["PI_XBTUSD"]}',
        b'{"channel":"heartbeat"}',
        b'{"channel":"status","type":"update","data":[{"system":"online"}]}',
        b'{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USD"},"success":true}',
        b'{"channel":"ohlc","type":"update","data":[]}',
        b'{"feed":"heartbeat","time":1612266317519}',
        b'[1664,{"as":[["0.1","2","1618678123.481570"]],"bs":[]},"book-1000","WAVES/EUR"]',
        b'[1664,{"a":[["0.1","2","1618678123.4"]]},{"b":[["0.1","2","1618678123.4"]],"c":"1"},"book-1000","WAVES/EUR"]',
    ],
)
def test_other_messages_of_kraken_carry_no_trade(value: bytes) -> None:
    assert decode(value) == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"foo":1}', Reason.malformed),
        (b"[]", Reason.malformed),
        (b"[1,2,3,4]", Reason.malformed),
        (b"5", Reason.malformed),
        (V2.replace(b'"buy"', b'"b"'), Reason.malformed),
        (V2.replace(b"update", b"delete"), Reason.malformed),
        (V2.replace(b"T17:35:56", b"T25:35:56"), Reason.malformed),
        (V2.replace(b"2023-10-06T17:35:56.123456789Z", b"2023-10-06"), Reason.malformed),
        (V2.replace(b"105910.50", b"NaN"), Reason.malformed),
        (V2.replace(b"105910.50", b'"NaN"'), Reason.not_a_number),
        (V2.replace(b"105910.50", b"1e400"), Reason.out_of_range),
        (V2.replace(b"0.00012460", b"-1"), Reason.negative_size),
        (V2.replace(b"2023-10", b"1923-10"), Reason.out_of_range),
        (V1.replace(b'"s"', b'"x"'), Reason.malformed),
        (V1.replace(b"1534614057.321597", b"yesterday"), Reason.not_a_number),
        (V1.replace(b"1534614057.321597", b"1534614057321"), Reason.out_of_range),
        (FUTURES.replace(b"1612266317519", b"1612266317"), Reason.out_of_range),
        (FUTURES.replace(b'"uid":"05af78ac-a774-478c-a50c-8b9c234e071e",', b""), Reason.malformed),
    ],
)
def test_a_bad_message_says_why(value: bytes, reason: Reason) -> None:
    with pytest.raises(BadTick) as caught:
        decode(value)
    assert caught.value.reason == reason, caught.value.detail
