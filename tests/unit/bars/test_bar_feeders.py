"""Coarser bars are made of finer ones."""

from dataclasses import replace

import pytest
from barlog import SECOND, T0, engine, finished
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cuts, logs, specs

from schemas.bar import bar_key
from streams.bars.types import BarType, feeders


def fed_by(*names: str) -> dict[str, str | None]:
    found = feeders(tuple(map(BarType.parse, names)))
    return {bar_type.name: None if feeder is None else found[feeder][0].name for bar_type, feeder in found}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1s"], {"1s": None}),
        (["1m", "1s"], {"1s": None, "1m": "1s"}),
        (["1s", "1m", "90s", "1h"], {"1s": None, "1m": "1s", "90s": "1s", "1h": "90s"}),
        (["2s", "3s", "10s", "1m"], {"2s": None, "3s": None, "10s": "2s", "1m": "10s"}),
        (["7s", "1h"], {"7s": None, "1h": None}),
        (["1m", "60s"], {"1m": None, "60s": "1m"}),
    ],
)
def test_the_coarsest_finer_one_that_divides_it_feeds_it(names, expected) -> None:
    assert fed_by(*names) == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6, unique=True))
def test_a_feeder_divides_and_no_other_is_coarser(seconds) -> None:
    found = feeders(tuple(BarType.parse(f"{n}s") for n in seconds))
    intervals = [bar_type.interval_ns for bar_type, _ in found]
    assert intervals == sorted(intervals)
    for number, (bar_type, feeder) in enumerate(found):
        divisors = [i for i in range(number) if bar_type.interval_ns % intervals[i] == 0]
        assert feeder == (max(divisors) if divisors else None)


bar_types = st.lists(
    st.sampled_from(["1s", "2s", "3s", "6s", "9s", "10s", "1m"]), min_size=1, max_size=5, unique=True
).map(lambda names: tuple(map(BarType.parse, names)))


@settings(deadline=None)
@given(specs, bar_types, logs(), cuts)
def test_bars_of_fed_windows_are_those_of_their_ticks(a_spec, types, records, sizes) -> None:
    alone = {}
    for bar_type in types:
        alone |= finished(replace(a_spec, bar_types=(bar_type,)), records, sizes).held
    assert finished(replace(a_spec, bar_types=types), records, sizes).held == alone


@settings(deadline=None)
@given(specs, bar_types, logs())
def test_a_bar_that_is_published_early_has_what_is_still_in_finer_windows(a_spec, types, records) -> None:
    def early(some_types):
        an_engine = engine(replace(a_spec, bar_types=some_types))
        an_engine.apply(records, T0)
        return {bar_key(bar): bar for bar in an_engine.idle(T0 + 3600 * SECOND)}

    alone = {}
    for bar_type in types:
        alone |= early((bar_type,))
    assert early(types) == alone
