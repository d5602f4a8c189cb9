"""Decimal numbers as integers: a price or a size is an `int` in units of 1e-18.

    parse("61837.63") == 61837_630000000000000000
    render(parse("1e-05")) == "0.00001"

Integers add and multiply exactly and fast; price times size is a turnover in units of 1e-36.
"""

import re

SCALE = 18
TURNOVER_SCALE = 2 * SCALE
ONE = 10**SCALE
MAX_DIGITS = 18
"""Integer digits of the largest number, in front of the point."""
MAX_TEXT = 128
"""Characters of the longest text that is read."""
_REMEMBERED = 1 << 16

_POWERS: list[int] = [10**exponent for exponent in range(SCALE + 1)]
_LIMIT = 10 ** (MAX_DIGITS + SCALE)
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?").fullmatch


class OutOfRange(ValueError):
    """A number, but not one that fits: too large, or finer than 1e-18."""


def parse_once(text: str) -> int:
    """The number in units of 1e-18, exactly; the grammar is JSON's: no "+1", "1.", ".5", "1_0" or "NaN".

    Raises ValueError for what is no number and OutOfRange, a ValueError, for one that does not fit.
    """
    if len(text) <= MAX_DIGITS and text.isascii():  # the common case, at half the cost
        whole, _, fraction = text.partition(".")
        if whole.isdigit() and fraction.isdigit() and (whole[0] != "0" or whole == "0"):
            return int(whole + fraction) * _POWERS[SCALE - len(fraction)]
    match = _NUMBER(text) if len(text) <= MAX_TEXT else None
    if match is None:
        raise ValueError(f"{shorten(text)} is not a decimal number")
    sign, whole, fraction, exponent = match.groups("")
    value = int(whole + fraction)
    if not value:
        return 0
    shift = SCALE - len(fraction)
    if exponent:
        shift += int(exponent)
    if shift < 0:
        value, lost = divmod(value, 10**-shift) if shift > -MAX_TEXT else (0, value)
        if lost:
            raise OutOfRange(f"{shorten(text)} is out of range: at most {SCALE} fraction digits")
    else:
        value = value * 10**shift if shift <= MAX_DIGITS + SCALE else _LIMIT
    if value >= _LIMIT:
        raise OutOfRange(f"{shorten(text)} is out of range: at most {MAX_DIGITS} integer digits")
    return -value if sign else value


class _Parsed(dict[str, int]):
    """What has been parsed lately; an LRU cache costs more than it saves where numbers repeat little."""

    def __missing__(self, text: str) -> int:
        value = parse_once(text)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = value
        return value


parse = _Parsed().__getitem__
"""`parse_once`, remembering: prices and sizes repeat."""


def render(value: int, scale: int = SCALE) -> str:
    """Plain notation without exponent, trailing zeros or trailing point: "0.00000001", "-37.63", "0"."""
    if not value:
        return "0"
    if value < 0:
        return f"-{render(-value, scale)}"
    digits = str(value)
    if len(digits) <= scale:
        digits = digits.zfill(scale + 1)
    point = len(digits) - scale
    fraction = digits[point:].rstrip("0")
    return f"{digits[:point]}.{fraction}" if fraction else digits[:point]


def parse_rendered(text: str, scale: int = SCALE) -> int:
    """The number that `render` made this of: a sum, too, which may be larger than what `parse_once` reads.

    Raises ValueError for what it would never make.
    """
    whole, _, fraction = text.partition(".")
    if len(fraction) > scale:
        raise ValueError(f"{shorten(text)} has more than {scale} fraction digits")
    ones: int = 10 ** (scale - len(fraction))
    return int(whole + fraction) * ones


class _Rendered(dict[int, str]):
    def __missing__(self, value: int) -> str:
        text = render(value)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[value] = text
        return text


render_again = _Rendered().__getitem__
"""`render`, remembering: the prices of a bar are those of others."""


def shorten(text: str, limit: int = 40) -> str:
    """The text quoted for an error: cut where nobody would read on, control characters escaped."""
    shown = repr(text[:limit])[1:-1]
    return f'"{shown}"' if len(text) <= limit else f'"{shown}…"'
