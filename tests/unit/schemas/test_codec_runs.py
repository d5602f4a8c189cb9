"""What a codec makes of a run of records, where its feed has no faster way."""

from __future__ import annotations

import pytest

from schemas.codecs import get_codec
from schemas.errors import BadTick
from schemas.trade import Trades


def test_rows_are_records_where_a_feed_has_none_of_its_own() -> None:
    codec = get_codec("binance", venue="BINANCE")
    values = [
        b'{"e":"trade","E":1700000000000,"s":"BTCUSDT","t":%d,"p":"1.5","q":"2","T":1700000000000,"m":true}'
        % n
        for n in range(1, 4)
    ]
    assert codec.decode_run(values, 0) == ()
    expected = Trades.none()
    for value in values:
        for trade in codec.decode(value):
            expected.append(trade)
    assert codec.columns(values) == expected
    assert expected.trade_id == [1, 2, 3]
    with pytest.raises(BadTick):
        codec.columns([*values, b"garbage"])
