import pytest

from schemas.codecs import get_codec
from schemas.codecs.csv import COLUMNS
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.trade import Trade

decode = get_codec("csv", "KRAKEN").decode
LINE = b"XBTUSDT,1762795433971744500,1762795433971999999,105433.60000,0.00027625,10218208,buy,l"


def test_a_line_is_a_trade() -> None:
    assert decode(LINE) == (
        Trade(
            "XBTUSDT",
            "KRAKEN",
            1762795433971744500,
            parse("105433.6"),
            parse("0.00027625"),
            "10218208",
            1,
            1,
            1762795433971999999,
        ),
    )


def test_receive_time_id_and_side_may_be_empty() -> None:
    assert decode(b"XBTUSDT,1762795433971744500,,1,2,,,\r\n") == (
        Trade("XBTUSDT", "KRAKEN", 1762795433971744500, parse("1"), parse("2")),
    )


def test_conditions_may_hold_commas() -> None:
    assert decode(LINE + b',m,"x"') == decode(LINE)


def test_the_header_carries_no_trade() -> None:
    assert decode(COLUMNS.encode() + b"\n") == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"XBTUSDT", Reason.malformed),
        (b"symbol,price\n", Reason.malformed),
        (LINE + b"\n" + LINE, Reason.malformed),
        (LINE.replace(b"buy", b"BUY"), Reason.malformed),
        (LINE.replace(b"XBTUSDT", b"\xff"), Reason.malformed),
        (LINE.replace(b"XBTUSDT", b""), Reason.bad_symbol),
        (LINE.replace(b"105433.60000", b"1,000.5"), Reason.malformed),
        (LINE.replace(b"105433.60000", b"one"), Reason.not_a_number),
        (LINE.replace(b"0.00027625", b"-1"), Reason.negative_size),
        (LINE.replace(b"1762795433971744500", b"1762795433"), Reason.out_of_range),
        (LINE.replace(b"1762795433971744500", b"1762795433.97"), Reason.not_a_number),
        (LINE.replace(b"1762795433971744500", "٣".encode()), Reason.not_a_number),
        (LINE.replace(b"1762795433971744500", b"9" * 5000), Reason.not_a_number),
        (LINE.replace(b"1762795433971999999", b"0"), Reason.out_of_range),
    ],
)
def test_a_bad_line_says_why(value: bytes, reason: Reason) -> None:
    with pytest.raises(BadTick) as caught:
        decode(value)
    assert caught.value.reason == reason, caught.value.detail
