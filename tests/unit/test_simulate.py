from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from schemas.codecs import get_codec
from schemas.trade import instrument
from streams.simulate import RESOLUTION_NS, SimTick, SimulatedFeed

NOW_NS = 1_723_161_255_342_000_000
STEP_NS = 50_000_000


def in_steps(feed: SimulatedFeed, steps: int, n: int) -> list[SimTick]:
    return [tick for i in range(steps) for tick in feed.ticks(n, NOW_NS + i * STEP_NS)]


def test_the_same_seed_gives_the_same_ticks_and_another_seed_others() -> None:
    first, again, other = (SimulatedFeed(seed, 5, disorder_ns=10**9, duplicates=0.1) for seed in (1, 1, 2))

    assert in_steps(first, 20, 10) == in_steps(again, 20, 10)
    assert in_steps(other, 20, 10) != in_steps(SimulatedFeed(1, 5), 20, 10)


def test_prices_do_not_depend_on_how_many_ticks_are_asked_for_at_a_time() -> None:
    one_by_one = in_steps(SimulatedFeed(3, 5), 300, 1)
    at_once = SimulatedFeed(3, 5).ticks(300, NOW_NS)

    assert [(t.symbol, t.price, t.size, t.trade_id, t.side) for t in one_by_one] == [
        (t.symbol, t.price, t.size, t.trade_id, t.side) for t in at_once
    ]


def test_disorder_and_duplicates_change_nothing_but_times_and_repetition() -> None:
    plain = in_steps(SimulatedFeed(3, 5), 20, 20)
    flawed = in_steps(SimulatedFeed(3, 5, disorder_ns=10**9, duplicates=0.1), 20, 20)
    distinct = list({(t.symbol, t.trade_id): t for t in flawed}.values())

    assert [(t.symbol, t.price, t.trade_id) for t in distinct] == [
        (t.symbol, t.price, t.trade_id) for t in plain[: len(distinct)]
    ]


def test_every_tick_is_what_the_codec_of_tidegate_reads() -> None:
    codec = get_codec("tidegate")

    for tick in SimulatedFeed(1, 60, venue='Q"1').ticks(2_000, NOW_NS):
        (trade,) = codec.decode(tick.encode())
        assert instrument(trade.venue, trade.symbol).encode() == tick.key()
        assert (trade.ts_ns, trade.trade_id) == (tick.ts_ns, tick.trade_id)
        assert trade.price > 0
        assert trade.size > 0
        assert trade.side == {"buy": 1, "sell": -1}[tick.side]


def test_event_times_run_from_the_last_call_to_this_one_and_never_beyond() -> None:
    feed = SimulatedFeed(1, 3)
    feed.ticks(1, NOW_NS)

    ticks = feed.ticks(100, NOW_NS + STEP_NS)

    assert all(NOW_NS - RESOLUTION_NS < t.ts_ns <= NOW_NS + STEP_NS for t in ticks)
    assert ticks == sorted(ticks, key=lambda t: t.ts_ns)
    assert ticks[-1].ts_ns - ticks[0].ts_ns > STEP_NS / 2


def test_a_clock_that_is_set_back_makes_no_tick_of_the_future() -> None:
    feed = SimulatedFeed(1, 3)
    feed.ticks(10, NOW_NS)

    # An order that began before may still be going on, at the time at which it began.
    ticks = [t for t in feed.ticks(50, NOW_NS - 10**9) if t.ts_ns != NOW_NS]

    assert len(ticks) > 40
    assert all(t.ts_ns <= NOW_NS - 10**9 for t in ticks)


def test_disorder_stays_within_its_bound() -> None:
    ticks = in_steps(SimulatedFeed(1, 3, disorder_ns=10**9), 100, 20)
    latest, lags = 0, []
    for tick in ticks:
        latest = max(latest, tick.ts_ns)
        lags.append(latest - tick.ts_ns)

    assert 0 < max(lags) <= 10**9 + RESOLUTION_NS
    assert sum(lag > 0 for lag in lags) > len(lags) / 20


def test_trades_of_one_order_share_their_millisecond() -> None:
    ticks = in_steps(SimulatedFeed(1, 3), 100, 20)
    pairs = [(a, b) for a, b in pairwise(ticks) if a.symbol == b.symbol and a.ts_ns == b.ts_ns]

    assert len(pairs) > 100
    assert all(tick.ts_ns % RESOLUTION_NS == 0 for tick in ticks)


def test_duplicates_repeat_a_tick_as_it_was_and_are_counted() -> None:
    feed = SimulatedFeed(1, 3, duplicates=0.1)
    seen: dict[tuple[str, int], SimTick] = {}
    repeated = 0
    for tick in in_steps(feed, 100, 20):
        before = seen.setdefault((tick.symbol, tick.trade_id), tick)
        assert before == tick
        repeated += before is tick and seen[tick.symbol, tick.trade_id] is not tick

    assert feed.duplicated == 2_000 - len(seen)
    assert 100 < feed.duplicated < 300


def test_ids_of_a_symbol_count_up_from_the_first() -> None:
    ids = defaultdict(list)
    for tick in SimulatedFeed(1, 4, first_id=700).ticks(500, NOW_NS):
        ids[tick.symbol].append(tick.trade_id)

    assert len(ids) == 4
    assert all(found == list(range(700, 700 + len(found))) for found in ids.values())


def test_the_first_instrument_is_the_busiest() -> None:
    counts = Counter(t.symbol for t in SimulatedFeed(1, 20).ticks(5_000, NOW_NS))

    assert len(counts) == 20
    assert counts.most_common(1)[0][0] == "BTCUSDT"


@pytest.mark.parametrize(
    ("instruments", "options"),
    [(0, {}), (1, {"duplicates": 1.0}), (1, {"duplicates": -0.1}), (1, {"disorder_ns": -1})],
)
def test_what_cannot_be_simulated_is_refused(instruments: int, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"instruments|duplicates|disorder_ns"):
        SimulatedFeed(1, instruments, **options)  # type: ignore[arg-type]
