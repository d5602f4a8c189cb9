import pytest

from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.trade import Trade

decode = get_codec("binance", "BINANCE").decode

TRADE = (
    b'{"e":"trade","E":1639351062244,"s":"ETHUSDT","t":705291099,"p":"4149.74000000","q":"0.43870000",'
    b'"b":7038593583,"a":7038593613,"T":1639351062243,"m":true,"M":true}'
)
AGG = (
    b'{"e":"aggTrade","E":1675759520848,"s":"ETHUSDT","a":226532,"p":"1632.46000000","q":"0.34305000",'
    b'"f":228423,"l":228425,"T":1675759520847,"m":false,"M":true,"st":1}'
)
FUTURES = (
    b'{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006",'
    b'"X":"MARKET","m":false}'
)
ETH = Trade("ETHUSDT", "BINANCE", 1639351062243000000, parse("4149.74"), parse("0.4387"), 705291099, -1)


def test_when_the_buyer_is_the_maker_the_aggressor_sells() -> None:
    assert decode(TRADE) == (ETH,)


def test_an_aggregate_has_its_own_id_and_counts_its_trades() -> None:
    assert decode(AGG) == (
        Trade("ETHUSDT", "BINANCE", 1675759520847000000, parse("1632.46"), parse("0.34305"), 226532, 1, 3),
    )


@pytest.mark.parametrize(
    "value",
    [
        b'{"stream":"ethusdt@trade","data":' + TRADE + b"}",
        b'{"data":' + TRADE + b',"stream":"ethusdt@trade"}',
        b'{\n  "stream": "ethusdt@trade",\n  "data": ' + TRADE + b"\n}\n",
        b"\n " + TRADE,
        TRADE.replace(b'"e":"trade",', b"").replace(b'"M":true', b'"e":"trade"'),
    ],
)
def test_a_frame_around_it_and_the_order_of_fields_do_not_matter(value: bytes) -> None:
    assert decode(value) == (ETH,)


def test_a_recorded_line_brings_its_receive_time() -> None:
    (trade,) = decode(b'1639351062255896568 {"stream":"ethusdt@trade","data":' + TRADE + b"}")
    assert (trade.ts_ns, trade.recv_ns) == (1639351062243000000, 1639351062255896568)
    assert decode(b"1639351062255896568 " + TRADE)[0].recv_ns == 1639351062255896568


def test_a_time_of_16_digits_is_in_microseconds() -> None:
    (trade,) = decode(TRADE.replace(b"1639351062243,", b"1639351062243123,"))
    assert trade.ts_ns == 1639351062243123000


def test_a_market_trade_of_futures_counts() -> None:
    assert decode(FUTURES)[0].trade_id == 5266583935


@pytest.mark.parametrize("kind", [b"INSURANCE_FUND", b"ADL", b"NA"])
def test_what_futures_publish_beside_market_trades_is_left_out(kind: bytes) -> None:
    assert decode(FUTURES.replace(b"MARKET", kind).replace(b"61800.30", b"0")) == ()


@pytest.mark.parametrize(
    "value",
    [
        b'{"e":"kline","E":1638747660000,"s":"BTCUSDT","k":{"t":1638747660000,"a":5}}',
        b'{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.3","6"]],"a":[]}',
        b'{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000","a":"0.35260000","A":"3199.00000000"}',
        b'{"stream":"nknusdt@bookTicker","data":{"u":499869768,"s":"NKNUSDT","b":"0.3","B":"6","a":"0.4","A":"3"}}',
        b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker","s":"BTCUSDT"}]}',
        b'[{"e":"24hrTicker","s":"BTCUSDT"},{"e":"24hrTicker","s":"ETHUSDT"}]',
        b'{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}',
        b'{"result":null,"id":1}',
        b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
        b'1723161254087896568 {"result":null,"id":1}',
    ],
)
def test_other_messages_of_binance_carry_no_trade(value: bytes) -> None:
    assert decode(value) == ()


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (b'{"foo":1}', Reason.malformed, "Object missing required field `e`"),
        (b"[]", Reason.malformed, "array"),
        (b"5", Reason.malformed, "int"),
        (b"1723161254087896568 5", Reason.malformed, "int"),
        (b"1723161254087896568", Reason.malformed, "int"),
        (b"1723161254087896568 ", Reason.malformed, "truncated"),
        (b"99999999999999999999 " + TRADE, Reason.out_of_range, "recv_ns"),
        (b"1723161254 " + TRADE, Reason.out_of_range, "is recv_ns in ns?"),
        (b'{"stream":"x@trade","data":5}', Reason.malformed, "$.data"),
        (b'{"e":5}', Reason.malformed, "$.e"),
        (
            TRADE.replace(b'"4149.74000000"', b"4149.74"),
            Reason.malformed,
            "Expected `str`, got `float` - at `$.p`",
        ),
        (TRADE.replace(b'"m":true,', b""), Reason.malformed, "missing required field `m`"),
        (TRADE.replace(b"705291099", b"705291099.0"), Reason.malformed, "$.t"),
        (TRADE.replace(b"4149.74000000", b"NaN"), Reason.not_a_number, 'price: "NaN"'),
        (TRADE.replace(b"0.43870000", b"-1"), Reason.negative_size, 'size: "-1"'),
        (TRADE.replace(b"1639351062243,", b"1639351062,"), Reason.out_of_range, "is T in ms, or in us?"),
        (
            TRADE.replace(b"1639351062243,", b"1639351062243000000,"),
            Reason.out_of_range,
            "is T in ms, or in us?",
        ),
        (TRADE.replace(b"1639351062243,", b"-1,"), Reason.out_of_range, "is T in ms, or in us?"),
        (AGG.replace(b"228425", b"228422"), Reason.malformed, "f..l: 228423..228422 is no range of trades"),
    ],
)
def test_a_bad_message_says_why(value: bytes, reason: Reason, detail: str) -> None:
    with pytest.raises(BadTick) as caught:
        decode(value)
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True), caught.value.detail
