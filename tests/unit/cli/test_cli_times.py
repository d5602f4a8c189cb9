from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cli.times import iso, parse_instant

NOON_NS = 1_723_118_400 * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2024-08-08", NOON_NS - 43_200 * 10**9),
        ("20240808", NOON_NS - 43_200 * 10**9),
        ("2024-08-08T12:00", NOON_NS),
        ("2024-08-08 12:00:00", NOON_NS),
        ("2024-08-08T12:00:00Z", NOON_NS),
        ("2024-08-08T14:00:00+02:00", NOON_NS),
        ("2024-08-08T12:00:00.5Z", NOON_NS + 500_000_000),
        ("2024-08-08T12:00:00.123456789", NOON_NS + 123_456_789),
        ("2024-08-08T12:00:00,000000001+00:00", NOON_NS + 1),
        (" 2024-08-08T12:00 ", NOON_NS),
        ("1723118400000000000", NOON_NS),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
    ],
)
def test_a_date_a_time_or_ns_are_read_to_the_ns(text: str, ns: int) -> None:
    assert parse_instant(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2024-13-01",
        "2024-08-08T25:00",
        "12:00",
        "2024-08-08T12:00:00.1234567890",
        "٢٠٢٤-٠٨-٠٨",
        "0",
        "1723118400",
        "1723118400000",
        "9" * 30,
        "-5",
        "1e18",
        "1969-12-31T23:59:59.5Z",
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:59:59-23:59:59.99999999",
    ],
)
def test_anything_else_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no date or time|is it in ns\?|is not between 1970 and 2262"):
        parse_instant(text)


@given(st.text(max_size=40) | st.datetimes().map(str) | st.from_regex(r"[0-9T:.,Z+-]{1,30}", fullmatch=True))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_instant(text) < 2**63


@given(st.integers(10**17, 2**63 - 1))
def test_what_is_printed_is_read_back_to_the_second(ns: int) -> None:
    assert parse_instant(iso(ns)) == ns // 10**9 * 10**9
