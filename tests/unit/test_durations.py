from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from streams.durations import NS, DurationNs, DurationNsOrOff, parse_duration


class Durations(BaseModel):
    grace: DurationNs = 0
    dedupe: DurationNsOrOff = 0


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("500ms", 500_000_000),
        ("2s", 2_000_000_000),
        (" 5m ", 300_000_000_000),
        ("1.5h", 5_400_000_000_000),
        ("1d", 86_400_000_000_000),
        ("0.000000001s", 1),
        ("0.1us", 100),
        ("999999999999999d", 999_999_999_999_999 * NS["d"]),
    ],
)
def test_a_duration_is_read_exactly(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 s",
        "-5s",
        "+5s",
        "5S",
        "5sec",
        "1e3s",
        ".5s",
        "5.s",
        "1_0s",
        "٣s",
        "5s5m",
        "inf",
        "off",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 500ms, 2s, 5m, 1h or 1d"):
        parse_duration(text)


@given(st.integers(0, 10**15 - 1), st.sampled_from(sorted(NS)))
def test_whole_numbers_of_any_unit_are_exact(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * NS[unit]


@given(st.integers(0, 10**9 - 1))
def test_a_fraction_of_a_second_is_exact_to_the_nanosecond(ns: int) -> None:
    assert parse_duration(f"0.{ns:09d}s") == ns


def test_fields_take_text_and_nanoseconds() -> None:
    assert Durations(grace="2s", dedupe="5m") == Durations(grace=2 * 10**9, dedupe=300 * 10**9)


def test_off_is_for_what_can_be_switched_off() -> None:
    assert Durations(dedupe="off").dedupe is None
    with pytest.raises(ValidationError):
        Durations(grace="off")
