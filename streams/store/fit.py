"""Whether a bar fits the table, and which one does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from schemas.bar import Bar, bar_key
from schemas.errors import BadBar
from schemas.fixed import shorten
from streams.store.table import PRICES, SUMS

PRICE_DIGITS = (20, 18)
"""Integer and fraction digits of DECIMAL(38, 18)."""
SUM_DIGITS = (60, 36)
"""As on the bars topic."""


def _number(whole: int, fraction: int) -> str:
    """A number in plain notation: no exponent, no zeros that say nothing, no -0."""
    tail = rf"\.[0-9]{{0,{fraction - 1}}}[1-9]"
    return rf"(?:0|-?(?:[1-9][0-9]{{0,{whole - 1}}}(?:{tail})?|0{tail}))"


_PRICE, _SUM = _number(*PRICE_DIGITS), _number(*SUM_DIGITS)
_ALL_PLAIN = rf"^(?:{_PRICE} ){{4}}(?:{_PRICE}|None)(?: {_SUM}){{4}}$"
_is_price, _is_sum = re.compile(_PRICE).fullmatch, re.compile(_SUM).fullmatch
_readable = re.compile(r"(-?)0*([0-9]+)(?:\.([0-9]*))?", re.ASCII).fullmatch


def fitted(bars: Sequence[Bar]) -> list[Bar]:
    """The bars with their numbers in plain notation; raises BadBar for one that a database would alter."""
    return [bar if plain else _fit(bar) for bar, plain in zip(bars, _plain_ones(bars), strict=True)]


def _plain_ones(bars: Sequence[Bar]) -> Sequence[bool]:
    # Arrow's expressions do all bars in one call, in a third of the time that Python's take.
    try:
        numbers = pa.array(
            [
                f"{bar.open} {bar.high} {bar.low} {bar.close} {bar.vwap} "
                f"{bar.volume} {bar.turnover} {bar.buy_volume} {bar.sell_volume}"
                for bar in bars
            ],
            pa.string(),
        )
    except UnicodeEncodeError:  # half of a character: one of them is no number
        return [False] * len(bars)
    plain: list[bool] = pc.match_substring_regex(numbers, _ALL_PLAIN).to_pylist()
    return plain


def bad_bar(bar: Bar, what: str) -> BadBar:
    """The error that names the bar."""
    source = f"{bar.source_topic}[{bar.source_partition}]@{bar.last_offset}"
    key = bar_key(bar).decode(errors="backslashreplace")
    return BadBar(f"bar {shorten(key, 200)} of {source}: {what}", bar=bar)


def named(error: BadBar, bars: Sequence[Bar]) -> BadBar:
    """The error for bars that were refused: it names the bar where it is known which."""
    if error.bar is not None or len(bars) != 1:
        return error
    return bad_bar(bars[0], str(error))


def _fit(bar: Bar) -> Bar:
    changed = {}
    for names, fits, (whole, fraction) in ((PRICES, _is_price, PRICE_DIGITS), (SUMS, _is_sum, SUM_DIGITS)):
        for name in names:
            text = getattr(bar, name)
            if text is None and name == "vwap":
                continue
            plain = _plain(text)
            if plain is None:
                raise bad_bar(bar, f"{name} {shorten(str(text))} is not a decimal number")
            if not fits(plain):
                limits = f"{whole} integer and {fraction} fraction digits"
                raise bad_bar(bar, f"{name} {shorten(text)} does not fit {limits}")
            changed[name] = plain
    return msgspec.structs.replace(bar, **changed)


def _plain(text: str) -> str | None:
    match = _readable(text) if isinstance(text, str) else None
    if match is None:
        return None
    sign, whole, fraction = match.groups("")
    number = f"{whole}.{fraction}".rstrip("0").rstrip(".")
    return number if number == "0" else sign + number
