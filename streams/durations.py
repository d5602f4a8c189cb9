"""Durations as people write them: 500ms, 2s, 5m, 1h, 1d."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}

_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(ns|us|ms|s|m|h|d)", re.ASCII)


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as ``500ms``, ``2s`` or ``1.5h``; ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration: write a number and a unit, such as 500ms, 2s, 5m, 1h or 1d"
        )
    number, unit = match.groups()
    whole, _, fraction = number.partition(".")
    return int(whole) * NS[unit] + (int(fraction) * NS[unit] // 10 ** len(fraction) if fraction else 0)


def _to_ns(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _to_ns_or_off(value: Any) -> Any:
    return None if value in ("off", None) else _to_ns(value)


#: A pydantic field in nanoseconds that is written as a duration.
DurationNs = Annotated[int, BeforeValidator(_to_ns)]
#: The same, where ``off`` switches the thing off (None).
DurationNsOrOff = Annotated[int | None, BeforeValidator(_to_ns_or_off)]
