"""What a feed that obeys sends of each partition."""

from __future__ import annotations

from collections import Counter

import pytest

from schemas.feedback import Level
from schemas.rate import RateAdjustment
from streams.cli.obeying import Scales
from streams.loop import partition_for

KEYS = [f"SIM:S{n}".encode() for n in range(40)]


def told(scale: float, partition: int | None = 0, provider: str = "tidegate") -> RateAdjustment:
    return RateAdjustment(provider=provider, scale=scale, reason=Level.soft, ts=1.0, partition=partition)


def sent(scales: Scales, each: int = 100) -> Counter[int]:
    """How many ticks of each partition's first instrument go out."""
    firsts = {partition_for(key, 4): key for key in reversed(KEYS)}
    found: Counter[int] = Counter()
    for partition, key in firsts.items():
        found[partition] = sum(scales.admit(key) == partition for _ in range(each))
    return found


def test_where_nothing_was_told_everything_goes_where_its_key_says() -> None:
    scales = Scales(4, "tidegate")
    assert [scales.admit(key) for key in KEYS] == [partition_for(key, 4) for key in KEYS]
    assert scales.held_back == 0


def test_each_partition_goes_at_its_scale_and_what_is_held_back_is_counted() -> None:
    lines: list[str] = []
    scales = Scales(4, "tidegate", lines.append)
    for adjustment in (told(0.5, 0), told(0.0, 1), told(0.03, 2), told(0.03, 2)):
        scales.note(adjustment)
    assert sent(scales) == {0: 50, 1: 0, 2: 3, 3: 100}
    assert scales.held_back == 50 + 100 + 97
    scales.note(told(1.0, None))
    assert sent(scales) == {0: 100, 1: 100, 2: 100, 3: 100}
    assert lines[:3] == [
        "partition 0: 0.5 of the rate (soft)",
        "partition 1: paused (soft)",
        "partition 2: 0.03 of the rate (soft)",
    ]
    assert lines[3:] == [f"partition {partition}: all (soft)" for partition in (0, 1, 2)]


@pytest.mark.parametrize("odd", [told(0.0, 4), told(0.0, 0, "another")])
def test_partitions_that_are_not_there_and_other_groups_change_nothing(odd: RateAdjustment) -> None:
    scales = Scales(4, "tidegate")
    scales.note(odd)
    assert sent(scales) == {0: 100, 1: 100, 2: 100, 3: 100}
