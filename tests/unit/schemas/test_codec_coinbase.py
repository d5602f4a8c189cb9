import pytest

from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.trade import Trade

decode = get_codec("coinbase", "COINBASE").decode

MATCH = (
    b'{"type":"match","trade_id":280232,"maker_order_id":"27fff20b","taker_order_id":"1da6ce16","side":"sell",'
    b'"size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,'
    b'"time":"2021-04-17T16:43:37.089723Z"}'
)
OLDER = (
    b'{"trade_id":"995098700","product_id":"BTC-USD","price":"68900.50","size":"0.00150000","side":"BUY",'
    b'"time":"2026-04-07T14:30:02.789012Z"}'
)
NEWER = (
    b'{"trade_id":"995098701","product_id":"BTC-USD","price":"68900.00","size":"0.05000000","side":"SELL",'
    b'"time":"2026-04-07T14:30:02.800000Z"}'
)


def market_trades(*trades: bytes) -> bytes:
    return (
        b'{"channel":"market_trades","client_id":"","timestamp":"2026-04-07T14:30:02.8Z","sequence_num":5,'
        b'"events":[{"type":"update","trades":[' + b",".join(trades) + b"]}]}"
    )


@pytest.mark.parametrize("kind", [b"match", b"last_match"])
def test_the_side_of_a_match_is_the_makers(kind: bytes) -> None:
    assert decode(MATCH.replace(b'"match"', b'"' + kind + b'"')) == (
        Trade("SKL-BTC", "COINBASE", 1618677817089723000, parse("0.00001305"), parse("985"), 280232, 1),
    )


def test_the_side_of_advanced_trade_is_the_makers_too() -> None:
    assert decode(market_trades(OLDER, NEWER)) == [
        Trade("BTC-USD", "COINBASE", 1775572202789012000, parse("68900.5"), parse("0.0015"), "995098700", -1),
        Trade("BTC-USD", "COINBASE", 1775572202800000000, parse("68900"), parse("0.05"), "995098701", 1),
    ]


def test_an_event_with_the_newest_first_is_turned_round() -> None:
    assert decode(market_trades(NEWER, OLDER)) == decode(market_trades(OLDER, NEWER))


def test_an_event_without_trades_is_no_error() -> None:
    assert decode(market_trades()) == []


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"subscriptions","channels":[]}',
        b'{"type":"heartbeat","sequence":1,"last_trade_id":2,"product_id":"BTC-USD","time":"2021-04-17T16:43:37Z"}',
        b'{"type":"ticker","sequence":1,"product_id":"BAND-GBP","price":"14.7","side":"buy","trade_id":8}',
        b'{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","2"]],"time":"2021-04-17T16:43:37Z"}',
        b'{"channel":"candles","client_id":"","events":[{"type":"update","candles":[]}]}',
        b'{"channel":"heartbeats","events":[{"current_time":"x","heartbeat_counter":1}]}',
    ],
)
def test_other_messages_of_coinbase_carry_no_trade(value: bytes) -> None:
    assert decode(value) == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"foo":1}', Reason.malformed),
        (b"[]", Reason.malformed),
        (b"5", Reason.malformed),
        (b'{"channel":"market_trades"}', Reason.malformed),
        (MATCH.replace(b'"sell"', b'"SELL"'), Reason.malformed),
        (MATCH.replace(b'"985"', b"985"), Reason.malformed),
        (MATCH.replace(b"16:43:37.089723Z", b"16:43:37.089723"), Reason.malformed),
        (MATCH.replace(b'"985"', b'"many"'), Reason.not_a_number),
        (MATCH.replace(b'"985"', b'"-985"'), Reason.negative_size),
        (MATCH.replace(b"2021-", b"0001-"), Reason.out_of_range),
        (MATCH.replace(b"SKL-BTC", b"SKL|BTC"), Reason.bad_symbol),
        (market_trades(OLDER, NEWER.replace(b"68900.00", b"x")), Reason.not_a_number),
    ],
)
def test_a_bad_message_says_why(value: bytes, reason: Reason) -> None:
    with pytest.raises(BadTick) as caught:
        decode(value)
    assert caught.value.reason == reason, caught.value.detail
