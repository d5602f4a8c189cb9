"""Which numbers of bars are taken as they are, which are written in plain notation, and which are refused."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bar import Bar
from schemas.errors import BadBar
from streams.store.fit import PRICE_DIGITS, SUM_DIGITS, fitted
from streams.store.table import PRICES, SUMS
from support.store_contract import a_bar

NUMBERS = (*PRICES, *SUMS)
#: What numbers are made of, and what they are not: zeros that say nothing, signs, exponents, other digits.
TEXTS = st.one_of(
    st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,4})?", fullmatch=True),
    st.integers(-(10**63), 10**63).map(str),
    st.decimals(allow_nan=True, allow_infinity=True, min_value=None, max_value=None).map(str),
    st.text("0019.-+eE \n٣", max_size=6),
    st.sampled_from(["", "-0", "0.0", "007", "1.", ".5", "1e3", "NaN", "\ud800", "None", "0" * 40 + "1"]),
)


def _plain(name: str, text: str) -> str | None:
    """What must be written, by decimal arithmetic; None where no column could hold it as it is."""
    whole, fraction = PRICE_DIGITS if name in PRICES else SUM_DIGITS
    if not text or set(text) - set("0123456789.-") or text[-1] == "-":
        return None
    if text.lstrip("-").startswith(".") or text.count("-") > 1:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    with localcontext() as context:
        context.prec = 200
        plain = f"{number.normalize():f}" if number else "0"
    digits, _, after = plain.lstrip("-").partition(".")
    return plain if len(digits) <= whole and len(after) <= fraction else None


@given(st.lists(st.tuples(st.sampled_from(NUMBERS), TEXTS), max_size=6), st.integers(0, 5))
def test_numbers_are_taken_written_plainly_or_refused(changes: list[tuple[str, str]], others: int) -> None:
    good = a_bar()
    bars = [msgspec.structs.replace(good, **{name: text}) for name, text in changes] + [good] * others
    expected = [(name, _plain(name, text)) for name, text in changes]
    if any(plain is None for _, plain in expected):
        with pytest.raises(BadBar, match=r"is not a decimal number|does not fit"):
            fitted(bars)
        return
    found = fitted(bars)
    assert [getattr(bar, name) for bar, (name, _) in zip(found, expected, strict=False)] == [
        plain for _, plain in expected
    ]
    assert found[len(changes) :] == [good] * others


def test_a_bar_without_a_vwap_fits() -> None:
    bar = msgspec.structs.replace(a_bar(), vwap=None)
    assert fitted([bar]) == [bar]


def test_bars_in_plain_notation_are_the_same_objects() -> None:
    bars: list[Bar] = [a_bar(), a_bar()]
    assert [id(bar) for bar in fitted(bars)] == [id(bar) for bar in bars]


def test_no_bars_fit() -> None:
    assert fitted([]) == []
