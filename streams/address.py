"""Where to listen: HOST:PORT."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>\d{1,5})", re.ASCII)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[IPV6]:PORT` or `:PORT`, which is every interface. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or (port := int(match["port"])) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9464; port 0 is any free one")
    return match["v6"] or match["host"] or "0.0.0.0", port  # noqa: S104  who writes no host means that
