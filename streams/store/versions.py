"""Which version of a bar is the one to keep, inside one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from schemas.bar import Bar, newer

Key = tuple[str, str, int]


def key_of(bar: Bar) -> Key:
    """What tells a row of the table from all others."""
    return bar.instrument, bar.type, bar.start_ns


def rounds(bars: Sequence[Bar]) -> Iterator[list[Bar]]:
    """The bars, each key at most once a round, without the versions that a newer one in the batch replaces.

    All go into the first round, but for those with another source than an earlier bar of their key: when
    these are written the row is there, and the database tells whose it is.
    """
    while bars:
        held = {key_of(bar): bar for bar in bars}
        rest = list[Bar]()
        if len(held) < len(bars):
            held, rest = _newest(bars)
        yield list(held.values())
        bars = rest


def _newest(bars: Sequence[Bar]) -> tuple[dict[Key, Bar], list[Bar]]:
    """Of each key the newest version from the source of its first, and the bars from others."""
    held: dict[Key, Bar] = {}
    rest = []
    for bar in bars:
        key = key_of(bar)
        other = held.setdefault(key, bar)
        if other is bar:
            continue
        if _source(other) != _source(bar):
            rest.append(bar)
        elif newer(bar, other):
            held[key] = bar
    return held, rest


def conflicting(bars: Sequence[Bar], refused: Iterable[Bar]) -> list[Bar]:
    """All bars with the key and source of a refused one: versions that it replaced are refused as well."""
    identities = {(key_of(bar), _source(bar)) for bar in refused}
    return [bar for bar in bars if (key_of(bar), _source(bar)) in identities] if identities else []


def _source(bar: Bar) -> tuple[str, int]:
    return bar.source_topic, bar.source_partition
