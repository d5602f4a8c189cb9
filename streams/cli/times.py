"""Instants as people write them: 2024-08-08, 2024-08-08T23:59:30.5Z, 1723161600000000000."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_MIN_NS, _MAX_NS = 10**17, 2**63 - 1  # 1973, below which it is no ns, to 2262
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Python reads microseconds; what is finer is read here.
_FRACTION = re.compile(r"(.*:\d\d)[.,](\d{1,9})(.*)", re.ASCII)


def parse_instant(text: str) -> int:
    """Nanoseconds since the epoch of an ISO date or time (UTC where it names no zone), or of ns themselves.

    Raises ValueError with a reason for people.
    """
    text = text.strip()
    if text.isdecimal() and text.isascii() and len(text) != len("20240808"):
        if len(text) > 19 or not _MIN_NS <= int(text) <= _MAX_NS:
            raise ValueError(f"{text[:40]} is not between 1973 and 2262: is it in ns?")
        return int(text)
    fraction = _FRACTION.fullmatch(text)
    try:
        instant = datetime.fromisoformat(fraction[1] + fraction[3] if fraction else text)
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        ns = (instant - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:40]!r} is no date or time: write 2024-08-08, 2024-08-08T23:59:30Z or ns since the epoch"
        ) from None
    ns += int(fraction[2].ljust(9, "0")) if fraction else 0
    if not 0 <= ns <= _MAX_NS:
        raise ValueError(f"{text[:40]!r} is not between 1970 and 2262")
    return ns


def iso(ns: int) -> str:
    """An instant to the second, for people: 2024-08-08T23:59:00Z."""
    return (_EPOCH + timedelta(seconds=ns // 10**9)).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_ms(seconds: float) -> str:
    """Seconds since the epoch to the millisecond, for people; the number itself where it is no such time."""
    try:
        moment = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    except (OverflowError, ValueError):
        return f"{seconds:g}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


class Instant(click.ParamType):
    """An option that takes what `parse_instant` reads."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The instant in ns; fails as a wrong command line."""
        if isinstance(value, int):
            return value
        try:
            return parse_instant(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
