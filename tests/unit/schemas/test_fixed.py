from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fixed import SCALE, TURNOVER_SCALE, OutOfRange, parse, parse_once, render, shorten

units = st.integers(-(10**36) + 1, 10**36 - 1)
NO_NUMBERS = [
    " 1",
    "1 ",
    "+1",
    "1.",
    ".5",
    "01",
    "-01.5",
    "1_0",
    "0x1",
    "1,5",
    "--1",
    "1e",
    "1e1.5",
    "٣",
    "1.٣",
    "²",
    "1.²",
    "true",
    "null",
]
NO_NUMBERS += ["nan", "NaN", "inf", "Infinity", "-Infinity"]

json_numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("61837.63000000", "61837.63"),
        ("0.00000001", "0.00000001"),
        ("-37.63", "-37.63"),
        ("1e-05", "0.00001"),
        ("1.5E+3", "1500"),
        ("1000000000000", "1000000000000"),
        ("999999999999999999.999999999999999999", "999999999999999999.999999999999999999"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("-0", "0"),
        ("0.000", "0"),
        ("0e999999999", "0"),
        ("0.10000000000000000000000000", "0.1"),
        ("100e-20", "0.000000000000000001"),
    ],
)
def test_a_number_is_read_exactly_and_written_plainly(text: str, plain: str) -> None:
    assert render(parse(text)) == plain


@pytest.mark.parametrize("text", [*NO_NUMBERS, "", "1\n", "1" * 129])
def test_what_json_does_not_write_as_a_number_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal number") as caught:
        parse(text)
    assert not isinstance(caught.value, OutOfRange)


@pytest.mark.parametrize(
    "text", ["1e18", "1e400", "-1000000000000000000", "1e999999999999", "9" * 128, "9" * 19]
)
def test_more_than_18_integer_digits_are_out_of_range(text: str) -> None:
    with pytest.raises(OutOfRange, match="at most 18 integer digits"):
        parse(text)


@pytest.mark.parametrize("text", ["0.0000000000000000001", "1e-19", "1e-999999999999", "1." + "0" * 40 + "1"])
def test_more_than_18_fraction_digits_are_refused_rather_than_rounded(text: str) -> None:
    with pytest.raises(OutOfRange, match="at most 18 fraction digits"):
        parse(text)


@given(units)
def test_every_number_survives_being_written_and_read(value: int) -> None:
    assert parse_once(render(value)) == value


@given(json_numbers)
def test_parsing_agrees_with_decimal(text: str) -> None:
    exact = Fraction(text) * 10**SCALE
    try:
        value = parse_once(text)
    except OutOfRange:
        assert abs(exact) >= 10**36 or exact.denominator > 1
    else:
        assert value == exact


@given(units, st.sampled_from([0, 1, SCALE, TURNOVER_SCALE]))
def test_rendering_agrees_with_decimal(value: int, scale: int) -> None:
    text = render(value, scale)
    digits = Decimal(value).as_tuple()
    assert Decimal(text) == Decimal((digits.sign, digits.digits, -scale))
    assert "e" not in text.lower()
    assert not text.startswith("-0") or text.startswith("-0.")
    assert not text.startswith((".", "-."))
    assert "." not in text or not text.endswith(("0", "."))


@given(st.text())
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    try:
        number = parse_once(text)
    except ValueError:
        return
    assert Fraction(number, 10**SCALE) == Fraction(Decimal(text))


def test_the_quoted_text_of_an_error_is_cut() -> None:
    assert shorten("abc") == '"abc"'
    assert shorten("a" * 41) == '"' + "a" * 40 + '…"'


def test_the_quoted_text_of_an_error_is_printable() -> None:
    assert shorten("1\n\ud800é") == r'"1\n\ud800é"'
