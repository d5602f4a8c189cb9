import pytest

from schemas.codecs import FEEDS, get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadTick, ConfigError
from schemas.fixed import parse
from schemas.trade import Trade, instrument

decode = get_codec("tidegate").decode
NS = 1723161255342000000


def tick(**fields: str) -> bytes:
    """Our own JSON, with fields replaced by JSON texts."""
    texts = {"symbol": '"BTCUSDT"', "ts_ns": str(NS), "price": '"61837.63"', "size": '"0.02"', **fields}
    return ("{" + ",".join(f'"{key}":{text}' for key, text in texts.items()) + "}").encode()


def refusal(value: bytes | None) -> BadTick:
    with pytest.raises(BadTick) as caught:
        decode(value)
    return caught.value


def test_a_tick_with_every_field_is_read() -> None:
    value = (
        b'{"symbol":"BTCUSDT","venue":"BINANCE","ts_ns":1723161255342000000,"price":"61837.63000000","size":"0.02",'
        b'"trade_id":3735683259,"side":"sell","recv_ns":1723161254087896568,"count":3,"ignored":[1]}'
    )
    assert decode(value) == (
        Trade(
            "BTCUSDT",
            "BINANCE",
            NS,
            61837_630000000000000000,
            20000000000000000,
            3735683259,
            -1,
            3,
            1723161254087896568,
        ),
    )


def test_a_tick_needs_symbol_time_price_and_size_only() -> None:
    assert decode(tick()) == (Trade("BTCUSDT", "", NS, parse("61837.63"), parse("0.02")),)


@pytest.mark.parametrize("field", ["venue", "trade_id", "side", "recv_ns", "count"])
def test_an_optional_field_may_be_null(field: str) -> None:
    assert decode(tick(**{field: "null"})) == decode(tick())


@pytest.mark.parametrize("text", ["0.1", "1e-1", '"0.1"', '"1E-1"', "0.100", '"\\u0030.1"'])
def test_a_number_is_taken_exactly_as_it_is_written(text: str) -> None:
    (trade,) = decode(tick(price=text, size=text))
    assert trade.price == trade.size == 10**17


def test_digits_beyond_float_precision_survive() -> None:
    (trade,) = decode(tick(price="123456789012345678.123456789012345678"))
    assert trade.price == 123456789012345678_123456789012345678


def test_prices_may_be_negative_or_zero_and_sizes_zero() -> None:
    (trade,) = decode(tick(price='"-37.63"', size='"0"'))
    assert (trade.price, trade.size) == (-37_630000000000000000, 0)
    assert decode(tick(price='"0"', size='"-0"'))[0].price == 0


def test_an_empty_trade_id_is_none() -> None:
    assert decode(tick(trade_id='""'))[0].trade_id is None


def test_the_configured_venue_wins_over_the_message_and_fills_in_for_it() -> None:
    assert get_codec("tidegate", "KRAKEN").decode(tick(venue='"BINANCE"'))[0].venue == "KRAKEN"
    assert get_codec("tidegate", "KRAKEN").decode(tick())[0].venue == "KRAKEN"


def test_an_instrument_is_venue_and_symbol_or_the_bare_symbol() -> None:
    assert instrument("BINANCE", "BTCUSDT") == "BINANCE:BTCUSDT"
    assert instrument("", "BTC/USD") == "BTC/USD"


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, Reason.empty, "the record has no value"),
        (b"", Reason.empty, "the record has no value"),
        (b"{", Reason.malformed, "truncated"),
        (b"\xff\xfe", Reason.malformed, "malformed"),
        (b"[" * 100_000, Reason.malformed, "recursion"),
        (b'{"x":' + b"[" * 100_000, Reason.malformed, "recursion"),
        (b"5", Reason.malformed, "Tick"),
        (b"[]", Reason.malformed, "Tick"),
        (b'{"foo":1}', Reason.malformed, "symbol: Field required"),
        (tick(price="NaN"), Reason.malformed, "invalid character"),
        (tick(price="-Infinity"), Reason.malformed, "invalid character"),
        (tick(symbol='"\\ud800"'), Reason.malformed, "surrogate"),
        (tick(symbol='"\xff"').replace("\xff".encode(), b"\xff"), Reason.malformed, "utf-8"),
        (tick(symbol="1"), Reason.malformed, "symbol: should be a string"),
        (tick(ts_ns="1723161255342000000.0"), Reason.malformed, "ts_ns: should be an integer"),
        (tick(ts_ns="true"), Reason.malformed, "ts_ns: should be an integer"),
        (tick(trade_id="1.5"), Reason.malformed, "trade_id: should be an integer or a string"),
        (tick(side='"BUY"'), Reason.malformed, "side: Input should be 'buy' or 'sell'"),
        (tick(count="0"), Reason.malformed, "count: Input should be greater than or equal to 1"),
        (tick(trade_id='"a\\nb"'), Reason.malformed, r'trade_id: "a\nb" cannot be used'),
        (tick(symbol='""'), Reason.bad_symbol, "symbol: is empty"),
        (tick(symbol='"A|B"'), Reason.bad_symbol, 'symbol: "A|B" cannot be used'),
        (tick(symbol='"' + "A" * 129 + '"'), Reason.bad_symbol, "at most 128"),
        (tick(symbol='"A\\u0000"'), Reason.bad_symbol, "printable"),
        (tick(venue='"A:B"'), Reason.bad_symbol, 'venue: "A:B" cannot be used'),
        (tick(price='"NaN"'), Reason.not_a_number, 'price: "NaN" is not a decimal number'),
        (tick(price='"Infinity"'), Reason.not_a_number, "price"),
        (tick(price="true"), Reason.not_a_number, 'price: "true" is not a decimal number'),
        (tick(size='""'), Reason.not_a_number, 'size: "" is not a decimal number'),
        (
            tick(price='"1e400"'),
            Reason.out_of_range,
            'price: "1e400" is out of range: at most 18 integer digits',
        ),
        (tick(price="9" * 5000), Reason.not_a_number, "price"),
        (
            tick(size="1e-19"),
            Reason.out_of_range,
            'size: "1e-19" is out of range: at most 18 fraction digits',
        ),
        (tick(size='"-1"'), Reason.negative_size, 'size: "-1" is negative'),
        (tick(ts_ns="1723161255342"), Reason.out_of_range, "is ts_ns in ns?"),
        (tick(ts_ns=str(2**63)), Reason.out_of_range, "is ts_ns in ns?"),
        (tick(recv_ns="1723161255342"), Reason.out_of_range, "is recv_ns in ns?"),
        (tick(trade_id=str(2**64)), Reason.out_of_range, "trade_id"),
    ],
)
def test_a_bad_tick_says_why(value: bytes | None, reason: Reason, detail: str) -> None:
    bad = refusal(value)
    # Some of it is msgspec's words, and which of them are capitals has changed.
    assert (bad.reason, detail.lower() in bad.detail.lower()) == (reason, True), bad.detail
    assert len(bad.detail) < 250


def test_a_repeated_field_counts_the_last_time_but_must_be_valid_each_time() -> None:
    assert decode(tick()[:-1] + b',"price":"2"}')[0].price == parse("2")
    assert "ts_ns" in refusal(b'{"ts_ns":"x",' + tick()[1:]).detail


def test_every_feed_has_a_codec_and_an_unknown_one_is_a_config_error() -> None:
    assert [get_codec(feed).venue for feed in FEEDS] == [""] * len(FEEDS)
    assert type(get_codec("jsonl")) is type(get_codec("tidegate"))
    with pytest.raises(ConfigError, match="unknown feed 'bloomberg'") as caught:
        get_codec("bloomberg")
    assert "binance" in caught.value.hint


def test_a_configured_venue_that_would_break_keys_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="venue"):
        get_codec("binance", "A|B")
