from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codecs.times import iso_to_ns, seconds_to_ns
from schemas.dead_letter import Reason
from schemas.errors import BadTick

SECOND = 1696613755 * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2023-10-06T17:35:55Z", SECOND),
        ("2023-10-06T17:35:55.4Z", SECOND + 400_000_000),
        ("2023-10-06T17:35:55.440295Z", SECOND + 440_295_000),
        ("2023-10-06T17:35:55.123456789Z", SECOND + 123_456_789),
        ("2023-10-06T17:35:55.000000001z", SECOND + 1),
        ("2023-10-06T17:35:55+00:00", SECOND),
        ("2023-10-06T19:35:55.5+02:00", SECOND + 500_000_000),
        ("2023-10-06 12:05:55-0530", SECOND),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
    ],
)
def test_an_iso_time_is_read_to_the_ns(text: str, ns: int) -> None:
    assert iso_to_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-10-06",
        "2023-10-06T17:35:55",
        "2023-10-06T17:35:55.4",
        "2023-10-06T17:35:55.Z",
        "2023-10-06T17:35:55.1234567890Z",
        "2023-02-30T17:35:55Z",
        "2023-10-06T24:00:00Z",
        "2023-10-06T17:35:60Z",
        "0000-10-06T17:35:55Z",
        "٢٠٢٣-10-06T17:35:55Z",
        "2023-10-06T17:35:55.٤Z",
        "2023-10-06T17:35:55 Z",
        "x" * 5000,
        "2023-10-06T17:35:55+99:00",
        "2023-10-06T17:35:55.-1Z",
        "2023-10-06T17:35:55.1_1Z",
    ],
)
def test_what_is_no_iso_time_with_a_zone_is_malformed(text: str) -> None:
    with pytest.raises(BadTick) as caught:
        iso_to_ns(text)
    assert caught.value.reason == Reason.malformed
    assert len(caught.value.detail) < 150


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=zones))
def test_iso_times_agree_with_datetime(moment: datetime) -> None:
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert iso_to_ns(moment.isoformat()) == microseconds * 1000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1634865952.143", 1634865952143000000),
        ("1618678133.8258188", 1618678133825818800),
        ("1634865952", 1634865952000000000),
        ("1.634865952143e9", 1634865952143000000),
        ("1634865952.1234567899", 1634865952123456789),
    ],
)
def test_seconds_are_read_to_the_ns_and_cut_there(text: str, ns: int) -> None:
    assert seconds_to_ns(text) == ns


@given(st.floats(10**8, 9 * 10**9))
def test_float_seconds_are_the_decimal_that_is_written(seconds: float) -> None:
    assert seconds_to_ns(repr(seconds)) == int(Fraction(repr(seconds)) * 10**9)
