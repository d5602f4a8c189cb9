"""Times as venues write them, to ns since the epoch, exactly."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import OutOfRange, parse_once, shorten

_ISO_TAIL = re.compile(r"(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([0-2][0-9]):?([0-5][0-9]))").fullmatch
_ISO_SECOND = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})").fullmatch


def iso_to_ns(text: str) -> int:
    """`2023-10-06T17:35:55.440295Z`: up to nine fraction digits, and always a time zone."""
    second, tail = _second(text[:19]), text[19:]
    if tail == "Z":
        return second
    digits = tail[1:-1]
    if tail[:1] == "." and tail[-1:] == "Z" and len(digits) < 10 and digits.isdigit() and digits.isascii():
        return second + int(digits.ljust(9, "0"))
    return second + _tail(tail, text)


@lru_cache(maxsize=1024)
def _second(text: str) -> int:
    # Ticks of one second come together, so almost every call is answered from memory.
    if match := _ISO_SECOND(text):
        year, month, day, hour, minute, second = map(int, match.groups())
        with suppress(ValueError):  # the 30th of February
            return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 10**9
    raise BadTick(Reason.malformed, f"time: {shorten(text)} is not an ISO 8601 time")


def _tail(tail: str, text: str) -> int:
    match = _ISO_TAIL(tail)
    if match is None:
        raise BadTick(
            Reason.malformed,
            f"time: {shorten(text)} is not an ISO 8601 time with a zone and at most nine fraction digits",
        )
    fraction, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) // timedelta(seconds=1)
    ns = int((fraction or "").ljust(9, "0"))
    return ns - offset * 10**9 if sign == "+" else ns + offset * 10**9


def seconds_to_ns(text: str) -> int:
    """`1634865952.143`, seconds since the epoch as a decimal number; digits beyond ns are cut off."""
    try:
        return parse_once(text) // 10**9
    except OutOfRange as error:
        raise BadTick(Reason.out_of_range, f"time: {error}") from None
    except ValueError as error:
        raise BadTick(Reason.not_a_number, f"time: {error}") from None
