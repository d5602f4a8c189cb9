"""Bar types and specs."""

import pytest

from streams.bars.types import BarSpec, BarType, Late

MINUTE = 60 * 10**9


@pytest.mark.parametrize(
    ("text", "interval_ns"),
    [("1s", 10**9), ("90s", 90 * 10**9), ("1m", MINUTE), ("4h", 240 * MINUTE), ("1d", 1440 * MINUTE)],
)
def test_a_bar_type_is_a_number_and_a_unit(text, interval_ns) -> None:
    assert BarType.parse(text) == BarType(text, interval_ns)


@pytest.mark.parametrize(
    "text", ["", "m", "0s", "01s", "1", "1w", "1M", " 1m", "1m\n", "-1s", "1.5m", "١s", "367d"]
)
def test_anything_else_is_refused(text) -> None:
    with pytest.raises(ValueError, match="is not a bar type"):
        BarType.parse(text)


def test_a_spec_has_sensible_defaults() -> None:
    spec = BarSpec((BarType.parse("1m"),))
    assert (spec.grace_ns, spec.late, spec.retain_ns) == (2 * 10**9, Late.REVISE, 5 * MINUTE)
    assert (spec.dedupe_ns, spec.max_future_ns, spec.idle_ns) == (6 * MINUTE, 10 * 10**9, 5 * 10**9)


@pytest.mark.parametrize(
    ("names", "rest", "complaint"),
    [
        ((), {}, "at least one bar type"),
        (("1m", "1s", "1m"), {}, "named twice"),
        (("1m",), {"grace_ns": -1}, "grace_ns is negative"),
        (("1m",), {"dedupe_ns": -1}, "dedupe_ns is negative"),
        (("1m",), {"late": "revize"}, "revize"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(names, rest, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        BarSpec(tuple(map(BarType.parse, names)), **rest)
