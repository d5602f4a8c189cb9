"""Whatever the bytes, a codec gives usable trades or raises BadTick."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_texts import ANY_JSON, ODD
from test_codec_binance import AGG, FUTURES
from test_codec_binance import TRADE as BINANCE
from test_codec_coinbase import MATCH, NEWER, OLDER, market_trades
from test_codec_cryptofeed import TRADE as CRYPTOFEED
from test_codec_csv import LINE
from test_codec_kraken import FUTURES as KRAKEN_FUTURES
from test_codec_kraken import SNAPSHOT, V1, V2
from test_codec_tidegate import tick

from schemas.checks import MAX_NS, MIN_NS
from schemas.codecs import FEEDS, get_codec
from schemas.errors import BadTick

MESSAGES = [
    *(tick(), tick(venue='"X"', trade_id='"7"', side='"buy"', recv_ns="1723161255342000001", count="2")),
    *(BINANCE, AGG, FUTURES, b'1639351062255896568 {"stream":"ethusdt@trade","data":' + BINANCE + b"}"),
    *(CRYPTOFEED, V1, V2, KRAKEN_FUTURES, SNAPSHOT, MATCH, market_trades(OLDER, NEWER), LINE),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid message of some feed with a few slices replaced: bytes, JSON, or a piece of another message."""
    value = draw(st.sampled_from(MESSAGES))
    pieces = st.binary(max_size=4) | (ODD | ANY_JSON).map(str.encode) | st.sampled_from(MESSAGES)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(value)))
        stop = draw(st.integers(start, min(len(value), start + 20)))
        value = value[:start] + draw(pieces) + value[stop:]
    return value


def assert_usable_or_refused(feed: str, value: bytes) -> None:
    try:
        trades = get_codec(feed).decode(value)
    except BadTick:
        return
    for trade in trades:
        assert trade.symbol
        assert "|" not in trade.symbol + trade.venue
        assert MIN_NS <= trade.ts_ns <= MAX_NS
        assert trade.recv_ns is None or MIN_NS <= trade.recv_ns <= MAX_NS
        assert abs(trade.price) < 10**36
        assert 0 <= trade.size < 10**36
        assert trade.side in (-1, 0, 1)
        assert trade.count >= 1
        assert trade.trade_id is None or 0 < len(str(trade.trade_id)) <= 128


@pytest.mark.parametrize("feed", FEEDS)
@given(st.binary())
def test_arbitrary_bytes_raise_nothing_but_bad_tick(feed: str, value: bytes) -> None:
    assert_usable_or_refused(feed, value)


@pytest.mark.parametrize("feed", FEEDS)
@given(mutated())
def test_mutated_messages_of_any_feed_raise_nothing_but_bad_tick(feed: str, value: bytes) -> None:
    assert_usable_or_refused(feed, value)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("opening", [b"[", b'{"data":', b'{"channel":', b'{"e":', b'{"x":[', b'[0,"trade",'])
def test_deep_nesting_is_a_bad_tick(feed: str, opening: bytes) -> None:
    with pytest.raises(BadTick):
        get_codec(feed).decode(opening * 100_000)
