"""What every store does, whatever database is behind it: a test class for each one to inherit."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.bar import Bar, newer
from schemas.errors import BadBar
from schemas.fixed import TURNOVER_SCALE, render
from streams.store.base import BarQuery, Store

FreshStore = Callable[[], AbstractAsyncContextManager[Store]]

MINUTE_NS = 60 * 10**9
START_NS = 1_700_000_040 * 10**9

model_settings = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def a_bar(**changes: Any) -> Bar:
    """A bar of BINANCE:BTCUSDT; `symbol` and `venue` name its instrument too."""
    venue, symbol = changes.get("venue", "BINANCE"), changes.get("symbol", "BTCUSDT")
    start_ns = changes.get("start_ns", START_NS)
    fields: dict[str, Any] = {
        "instrument": f"{venue}:{symbol}" if venue else symbol,
        "symbol": symbol,
        "venue": venue,
        "type": "1m",
        "start_ns": start_ns,
        "end_ns": start_ns + MINUTE_NS,
        "open": "61837.63",
        "high": "61840",
        "low": "61830.1",
        "close": "61835.005",
        "volume": "1.5",
        "turnover": "92755.5",
        "vwap": "61837",
        "trade_count": 3,
        "buy_volume": "1",
        "sell_volume": "0.5",
        "first_trade_id": "3735683259",
        "last_trade_id": "3735683261",
        "first_offset": 10,
        "last_offset": 12,
        "source_topic": "md.ticks.v1",
        "source_partition": 0,
        "revision": 0,
        "final": True,
    }
    return Bar(**(fields | changes))


async def rows(store: Store, query: BarQuery | None = None) -> list[Bar]:
    """What the store gives for a query; all it has without one."""
    return [bar async for some in store.read(query or BarQuery()) for bar in some]


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """The store, open."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Model:
    """The contract in the fewest words: a dict, written one bar after the other."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, int], Bar] = {}

    def write(self, bars: list[Bar]) -> list[Bar]:
        """Write, and give the conflicts."""
        conflicts = []
        for bar in bars:
            key = (bar.instrument, bar.type, bar.start_ns)
            held = self.rows.setdefault(key, bar)
            if (held.source_topic, held.source_partition) != (bar.source_topic, bar.source_partition):
                conflicts.append(bar)
            elif newer(bar, held):
                self.rows[key] = bar
        return conflicts

    def sorted(self) -> list[Bar]:
        """All rows, in the order of `Store.read`."""
        return sorted(self.rows.values(), key=_order)


def _order(bar: Bar) -> tuple[str, str, int, str]:
    return bar.symbol, bar.type, bar.start_ns, bar.instrument


def versions() -> st.SearchStrategy[Bar]:
    """Versions of a few bars, so that many of them meet."""
    return st.builds(
        lambda source, **fields: a_bar(source_topic=source[0], source_partition=source[1], **fields),
        symbol=st.sampled_from(["BTCUSDT", "ethusdt"]),
        venue=st.sampled_from(["BINANCE", ""]),
        type=st.sampled_from(["1s", "1m"]),
        start_ns=st.sampled_from([START_NS, START_NS + MINUTE_NS]),
        open=st.sampled_from(["1", "2", "3"]),
        last_offset=st.integers(0, 2),
        revision=st.integers(0, 1),
        final=st.booleans(),
        source=st.sampled_from([("ticks", 0)] * 6 + [("ticks", 1), ("spot", 0)]),
    )


def decimals(whole: int, fraction: int, *, signed: bool = True) -> st.SearchStrategy[str]:
    """Plain numbers of up to so many digits, often with few."""
    return st.integers(0, fraction).flatmap(
        lambda scale: st.integers(1 - 10 ** (whole + scale) if signed else 0, 10 ** (whole + scale) - 1).map(
            lambda number: render(number, scale)
        )
    )


def store_contract() -> type:
    """A class of tests for one backend to inherit.

    Made anew for each: Hypothesis keeps what it learns of a property with its function.
    """

    class StoreContract:
        """Inherit, and give a fixture `fresh`: a context manager of an open store that holds nothing."""

        @model_settings
        @given(batches=st.lists(st.lists(versions(), max_size=12), max_size=5))
        async def test_it_holds_what_writing_bar_by_bar_into_a_dict_holds(
            self, fresh: FreshStore, batches: list[list[Bar]]
        ) -> None:
            model = Model()
            async with fresh() as store:
                for batch in batches:
                    expected = model.write(batch)
                    result = await store.write(batch)
                    assert [id(bar) for bar in result.conflicts] == [id(bar) for bar in expected]
                    assert result.written + result.stale + len(result.conflicts) == len(batch)
                    assert await rows(store) == model.sorted()
                for batch in batches:
                    assert (await store.write(batch)).written == 0
                assert await rows(store) == model.sorted()

        @model_settings
        @given(data=st.data(), cuts=st.lists(st.integers(1, 8), min_size=1, max_size=8))
        async def test_order_repetition_and_batch_boundaries_of_one_sources_versions_change_nothing(
            self, fresh: FreshStore, data: st.DataObject, cuts: list[int]
        ) -> None:
            published = [
                a_bar(
                    start_ns=START_NS + n * MINUTE_NS,
                    last_offset=offset,
                    revision=offset,
                    open=str(offset + 1),
                )
                for n, offset in itertools.product(range(3), range(4))
            ]
            order = data.draw(st.permutations(published * 2))
            async with fresh() as store:
                remaining = iter(order)
                for cut in itertools.cycle(cuts):
                    if not (batch := list(itertools.islice(remaining, cut))):
                        break
                    await store.write(batch)
                assert await rows(store) == [bar for bar in published if bar.revision == 3]

        @model_settings
        @given(
            prices=st.lists(decimals(20, 18), min_size=4, max_size=4),
            vwap=st.none() | decimals(20, 18),
            turnover=decimals(60, 36),
            volumes=st.lists(decimals(60, 36, signed=False), min_size=3, max_size=3),
        )
        async def test_numbers_are_read_back_as_they_were_written(
            self, fresh: FreshStore, prices: list[str], vwap: str | None, turnover: str, volumes: list[str]
        ) -> None:
            bar = a_bar(
                **dict(zip(("open", "high", "low", "close"), prices, strict=True)),
                **dict(zip(("volume", "buy_volume", "sell_volume"), volumes, strict=True)),
                vwap=vwap,
                turnover=turnover,
            )
            async with fresh() as store:
                await store.write([bar])
                assert await rows(store) == [bar]

        async def test_the_largest_and_the_finest_numbers_of_a_feed_stay_exact(
            self, fresh: FreshStore
        ) -> None:
            most = 10**36 - 1  # 18 integer and 18 fraction digits
            many = 10**9
            price, size, turnover = (
                render(most),
                render(most * many),
                render(most * most * many, TURNOVER_SCALE),
            )
            largest = a_bar(
                open=price, high=price, low="-" + price, close=price, vwap=price, volume=size, buy_volume=size,
                sell_volume="0", turnover=turnover,
            )  # fmt: skip
            finest = a_bar(
                symbol="DUST", open=render(1), high=render(1), low=render(-1), close="0", vwap=render(1),
                volume=render(1), buy_volume="0", sell_volume=render(1), turnover=render(1, TURNOVER_SCALE),
            )  # fmt: skip
            async with fresh() as store:
                await store.write([largest, finest])
                assert await rows(store) == [largest, finest]

        async def test_zeros_that_say_nothing_are_dropped(self, fresh: FreshStore) -> None:
            async with fresh() as store:
                await store.write(
                    [a_bar(open="61837.6300", low="-0.0", volume="100", turnover="-0", vwap="007.")]
                )
                (bar,) = await rows(store)
            assert (bar.open, bar.low, bar.volume, bar.turnover, bar.vwap) == (
                "61837.63",
                "0",
                "100",
                "0",
                "7",
            )

        async def test_text_is_kept_as_it_is(self, fresh: FreshStore) -> None:
            odd = a_bar(
                symbol="BTC/USD 'x' \"y\" \\N\t💥", first_trade_id="", last_trade_id=None, source_topic="ü"
            )
            async with fresh() as store:
                await store.write([odd])
                assert await rows(store) == [odd]
                assert (await store.write([odd])).stale == 1

        @model_settings
        @given(
            texts=st.lists(
                st.sampled_from(["None", "\\N", "\\.", "a\tb", "a\nb", "a\rb", "", "None\\"])
                | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
                min_size=3,
                max_size=3,
            ),
            none=st.booleans(),
        )
        async def test_any_text_is_kept_and_is_not_taken_for_none(
            self, fresh: FreshStore, texts: list[str], none: bool
        ) -> None:
            symbol, source, trade_id = texts
            bar = a_bar(
                symbol=symbol,
                source_topic=source,
                first_trade_id=trade_id,
                last_trade_id=None if none else trade_id,
                vwap=None if none else "1",
            )
            async with fresh() as store:
                await store.write([bar, a_bar(start_ns=START_NS - MINUTE_NS, symbol="A")])
                assert bar in await rows(store)

        async def test_an_empty_batch_is_written(self, fresh: FreshStore) -> None:
            async with fresh() as store:
                result = await store.write([])
            assert (result.written, result.stale, result.conflicts) == (0, 0, [])

        async def test_an_instrument_on_a_second_partition_is_a_conflict_and_its_row_stays(
            self, fresh: FreshStore
        ) -> None:
            first, other = a_bar(source_partition=0), a_bar(source_partition=1, last_offset=99)
            elsewhere = a_bar(source_topic="md.ticks.v2", last_offset=99)
            async with fresh() as store:
                await store.write([first])
                result = await store.write([other, elsewhere, a_bar(start_ns=START_NS + MINUTE_NS)])
                assert (result.written, result.stale) == (1, 0)
                assert result.conflicts == [other, elsewhere]
                assert (await rows(store))[0] == first

        async def test_a_conflict_inside_a_batch_is_decided_by_what_is_stored(
            self, fresh: FreshStore
        ) -> None:
            stored = a_bar(source_partition=1)
            batch = [
                a_bar(source_partition=0, last_offset=50),
                a_bar(source_partition=1, last_offset=51),
                a_bar(source_partition=0, last_offset=52),
            ]
            async with fresh() as store:
                await store.write([stored])
                result = await store.write(batch)
                assert result.conflicts == [batch[0], batch[2]]
                assert await rows(store) == [batch[1]]

        async def test_what_differs_among_repeats_is_judged_as_ever(self, fresh: FreshStore) -> None:
            stored = [a_bar(start_ns=START_NS + n * MINUTE_NS) for n in range(6)]
            newer = a_bar(start_ns=START_NS, last_offset=99)
            elsewhere = a_bar(start_ns=START_NS + MINUTE_NS, last_offset=99, source_partition=1)
            new = a_bar(start_ns=START_NS + 9 * MINUTE_NS)
            async with fresh() as store:
                await store.write(stored)
                for _ in range(2):
                    result = await store.write(stored)
                    assert (result.written, result.stale, result.conflicts) == (0, 6, [])
                result = await store.write([*stored[2:], newer, elsewhere, new])
                assert (result.written, result.stale, result.conflicts) == (2, 4, [elsewhere])
                assert await rows(store) == [newer, *stored[1:], new]

        async def test_nothing_is_written_of_a_batch_with_a_bad_bar_and_alone_it_is_named(
            self, fresh: FreshStore
        ) -> None:
            good = [a_bar(start_ns=START_NS + n * MINUTE_NS) for n in range(20)]
            for bad in (
                a_bar(open="1e5", last_offset=77),
                a_bar(close="NaN", last_offset=77),
                a_bar(high="1" + "0" * 20, last_offset=77),
                a_bar(low="0." + "0" * 18 + "1", last_offset=77),
                a_bar(turnover="", last_offset=77),
                a_bar(source_partition=2**31, last_offset=77),
                a_bar(trade_count=2**63, last_offset=77),
                a_bar(last_trade_id="\ud800", last_offset=77),
            ):
                async with fresh() as store:
                    with pytest.raises(BadBar):
                        await store.write([*good[:13], bad, *good[13:]])
                    with pytest.raises(
                        BadBar, match=r"BINANCE:BTCUSDT\|1m.*md\.ticks\.v1\[\d+\]@77"
                    ) as caught:
                        await store.write([bad])
                    assert caught.value.bar is bad
                    assert not caught.value.retriable
                    assert await rows(store) == []
                    assert (await store.write(good)).written == 20

        async def test_bars_are_read_by_symbol_type_and_start(self, fresh: FreshStore) -> None:
            bars = [
                a_bar(symbol=symbol, venue=venue, type=kind, start_ns=START_NS + n * MINUTE_NS, final=n < 2)
                for symbol, kind, n, venue in itertools.product(
                    ("BTC", "ETH", "eth"), ("1m", "5m"), range(3), ("", "KRAKEN")
                )
            ]
            bars.sort(key=_order)
            async with fresh() as store:
                await store.write(bars[::-1])
                assert await rows(store) == bars
                for query, expected in (
                    (BarQuery(symbol="ETH"), lambda bar: bar.symbol == "ETH"),
                    (BarQuery(symbol="ETH", type="5m"), lambda bar: (bar.symbol, bar.type) == ("ETH", "5m")),
                    (BarQuery(venue=""), lambda bar: bar.venue == ""),
                    (BarQuery(final=False), lambda bar: not bar.final),
                    (BarQuery(start_ns=START_NS + 1), lambda bar: bar.start_ns > START_NS),
                    (BarQuery(end_ns=START_NS + MINUTE_NS), lambda bar: bar.start_ns == START_NS),
                    (BarQuery(start_ns=0, end_ns=START_NS), lambda bar: False),
                ):
                    assert await rows(store, query) == [bar for bar in bars if expected(bar)]
                newest = BarQuery(symbol="BTC", type="1m", venue="", newest=2)
                assert [bar.start_ns - START_NS for bar in await rows(store, newest)] == [
                    MINUTE_NS,
                    2 * MINUTE_NS,
                ]

        async def test_a_long_read_sees_one_moment_while_writing_goes_on(self, fresh: FreshStore) -> None:
            bars = [a_bar(start_ns=START_NS + n * MINUTE_NS) for n in range(12_000)]
            later = [msgspec.structs.replace(bar, revision=1, open="7") for bar in bars]
            async with fresh() as store:
                await store.write(bars)
                seen: list[Bar] = []
                async for some in store.read(BarQuery(symbol="BTCUSDT")):
                    if not seen:
                        assert len(some) < len(bars)
                        assert (await store.write(later)).written == len(bars)
                    seen += some
                assert seen == bars
                assert await rows(store) == later

        async def test_opening_and_closing_again_keeps_what_is_there(self, fresh: FreshStore) -> None:
            async with fresh() as store:
                await store.write([a_bar()])
                await store.open()
                assert await rows(store) == [a_bar()]
                await store.close()
                await store.close()
                await store.open()
                assert await rows(store) == [a_bar()]

    return StoreContract
