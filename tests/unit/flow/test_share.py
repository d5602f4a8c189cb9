"""A consumer that is asked often, a log that grows, and what a scale leaves of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.flow.meter import Meter
from streams.flow.share import Share

LOOK_S = 0.02


class Log:
    """A partition that is produced to at a steady rate, and a consumer that takes what its share allows.

    It sees the end of the log when it has nothing left that it fetched, as aiokafka does, or asks for it, once a
    second. Each record takes so many offsets: in a transaction of its own it is two.
    """

    def __init__(
        self,
        rate: float,
        *,
        backlog: int = 0,
        capacity: float = 100_000,
        fetch: int = 8000,
        offsets: int = 1,
    ) -> None:
        self.share = Share()
        self.now = 1000.0
        self.rate = rate
        self.produced = float(backlog)
        self.position = 0
        self.took: list[tuple[float, int]] = []
        self._buffered = 0
        self._end = 0
        self._capacity = int(capacity * LOOK_S)
        self._fetch = fetch
        self._offsets = offsets

    def run(self, seconds: float) -> int:
        """Gives how many records were consumed."""
        before, until = self.position, self.now + seconds
        while self.now < until:
            self.now += LOOK_S
            self.produced += self.rate * LOOK_S
            self._look()
        return self.position - before

    def _look(self) -> None:
        allowance = self.share.allowance(self.now)
        if not self._buffered:
            self._end = int(self.produced)
            self._buffered = min(self._end - self.position, self._fetch)
        taken = min(self._buffered, self._capacity if allowance is None else allowance)
        self._buffered -= taken
        self.position += taken
        if self._buffered and self.now % 1 < LOOK_S:
            self._end = int(self.produced)
        self.share.saw_end(self._end * self._offsets, self.position * self._offsets, self.now)
        if taken:
            self.share.took(taken * self._offsets, self.now)
            self.took.append((self.now, taken))


@pytest.mark.parametrize("scale", [0.1, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("rate", [20, 500, 20_000])
def test_a_scale_yields_that_fraction_of_what_is_produced(rate: float, scale: float) -> None:
    log = Log(rate)
    log.run(10)
    log.share.set(scale, log.now)
    for _ in range(3):
        assert log.run(20) == pytest.approx(scale * rate * 20, rel=0.05, abs=2)


def test_a_scale_that_moves_all_the_time_takes_nothing_away() -> None:
    log = Log(4)
    log.run(10)
    for step in range(400):
        log.share.set(0.5 + step % 10 / 1000, log.now)
        log.run(0.1)
    assert log.position == pytest.approx(40 + 80, rel=0.1)


def test_nothing_is_exactly_nothing() -> None:
    log = Log(5000)
    log.run(5)
    log.share.set(0, log.now)
    assert log.run(600) == 0


def test_it_is_even() -> None:
    log = Log(2000)
    log.run(10)
    log.share.set(0.5, log.now)
    log.took.clear()
    log.run(10)
    for tenth in range(1, 100):
        start = 1010 + tenth / 10
        assert sum(n for at, n in log.took if start <= at < start + 0.1) == pytest.approx(100, abs=45)


def test_it_stays_so_after_a_pause_and_after_a_catch_up() -> None:
    log = Log(1000)
    log.run(10)
    for scale, seconds in ((0, 30), (0.5, 20), (1, 2), (0.5, 20), (0, 5), (1, 1), (0.5, 20)):
        log.share.set(scale, log.now)
        consumed = log.run(seconds)
        if scale < 1:
            assert consumed == pytest.approx(scale * 1000 * seconds, rel=0.1)


def test_a_busier_market_gets_its_share_of_that() -> None:
    log = Log(1000)
    log.run(10)
    log.share.set(0.5, log.now)
    log.run(10)
    log.rate = 4000
    log.run(20)
    assert log.run(20) == pytest.approx(0.5 * 4000 * 20, rel=0.1)


def test_of_a_backlog_that_is_read_as_fast_as_can_be_it_is_a_fraction_of_that() -> None:
    log = Log(10, backlog=100_000_000, capacity=50_000)
    log.run(15)
    log.share.set(0.5, log.now)
    assert log.run(20) == pytest.approx(0.5 * 50_000 * 20, rel=0.1)


def test_a_backlog_that_is_read_to_its_end_meanwhile_leaves_a_fraction_of_what_comes_then() -> None:
    log = Log(1000, backlog=2_000_000, capacity=50_000)
    log.run(15)
    log.share.set(0.5, log.now)
    log.run(100)
    assert log.run(20) == pytest.approx(0.5 * 1000 * 20, rel=0.1)


@pytest.mark.parametrize("silent_s", [20, 900, 36_000])
def test_a_market_that_opens_after_a_silence_is_not_held_to_what_it_was(silent_s: float) -> None:
    log = Log(100)
    log.run(10)
    log.share.set(0.5, log.now)
    log.run(10)
    log.rate = 0
    log.run(20)
    log.now += silent_s
    log.rate = 10_000
    log.run(10)
    assert log.run(20) == pytest.approx(0.5 * 10_000 * 20, rel=0.1)


@pytest.mark.parametrize("silent_s", [30, 900])
def test_a_market_that_opens_and_is_held_back_at_once_gets_a_share_of_what_it_is_now(silent_s: float) -> None:
    log = Log(500)
    log.run(10)
    log.rate = 0
    log.run(silent_s)
    log.rate = 5000
    log.run(3)
    log.share.set(0.5, log.now)
    assert log.run(5) == pytest.approx(0.5 * 5000 * 5, rel=0.3), "the silence is forgotten within seconds"
    assert log.run(5) == pytest.approx(0.5 * 5000 * 5, rel=0.05)


def test_a_market_that_falls_off_is_noticed_before_all_is_taken_that_was_fetched() -> None:
    log = Log(10_000, fetch=100_000)
    log.run(10)
    log.share.set(0.1, log.now)
    log.run(60)
    log.rate = 1000
    log.run(10)
    assert log.run(20) == pytest.approx(0.1 * 1000 * 20, rel=0.1)


@pytest.mark.parametrize("scale", [0.1, 0.5, 0.9])
def test_offsets_that_transactions_take_do_not_count_as_records(scale: float) -> None:
    log = Log(1000, offsets=2)
    log.run(10)
    log.share.set(scale, log.now)
    log.run(10)
    assert log.run(20) == pytest.approx(scale * 1000 * 20, rel=0.1)


def test_one_who_takes_over_in_the_midst_of_it_learns_the_rate() -> None:
    log = Log(3000, backlog=30_000)
    log.share.set(0.5, log.now)
    log.run(10)
    assert log.run(20) == pytest.approx(0.5 * 3000 * 20, rel=0.1)


def test_the_last_records_of_a_partition_that_fell_silent_are_taken_too() -> None:
    log = Log(100)
    log.run(10)
    log.share.set(0.5, log.now)
    log.run(10)
    log.rate = 0
    log.run(60)
    assert log.position == int(log.produced)


def test_open_again_it_takes_all() -> None:
    log = Log(1000)
    log.run(5)
    log.share.set(0, log.now)
    log.run(10)
    log.share.set(1, log.now)
    log.run(1)
    assert log.position >= int(log.produced) - 1000 * LOOK_S


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 40)), max_size=12))
def test_a_limited_share_never_takes_more_than_its_part(steps: list[tuple[float, int]]) -> None:
    log = Log(1000)
    log.run(10)
    for scale, looks in steps:
        log.share.set(scale, log.now)
        consumed = log.run(looks * LOOK_S)
        if scale < 1:
            assert consumed <= scale * 1000 * looks * LOOK_S * 1.2 + scale * 1000 * 0.5 + 1


def test_a_meter_knows_nothing_of_less_than_a_second() -> None:
    meter = Meter()
    assert meter.rate() is None
    meter.note(0, 0.0)
    meter.note(100, 0.9)
    assert meter.rate() is None
    meter.note(200, 2.0)
    assert meter.rate() == 100


def test_a_meter_forgets_what_was_before_its_window() -> None:
    meter = Meter(5.0)
    for second in range(100):
        meter.note(second * 10 if second < 50 else 500 + (second - 50) * 70, float(second))
    assert meter.rate() == pytest.approx(70, rel=0.01)


def test_a_total_that_falls_starts_the_meter_anew() -> None:
    meter = Meter()
    for second in range(10):
        meter.note(1000 + second, float(second))
    meter.note(0, 10.0)
    assert meter.rate() is None
    meter.note(60, 12.0)
    assert meter.rate() == 30
