"""Three workers, four partitions, Apache Kafka and PostgreSQL: recorded trades give the venues' own bars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer

from recorded import TICKS, needs_ticks
from support import oracle
from support.bars import schema, stored
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.recorded, needs_ticks]

#: venue → names of its recordings, which go on over days
BINANCE = {
    "SPOT": ("spot_btcusdt", "spot_ethusdt"),
    "COINM": ("cm_btcusd_perp", "cm_ethusd_perp"),
    "USDM": ("usdm_btcusdt", "usdm_ethusdt"),
}


class Market(NamedTuple):
    """What came out, and what must have."""

    bars: dict[oracle.Key, oracle.Content]
    expected: dict[oracle.Key, oracle.Content]
    shares: list[set[int]]

    def of(self, instrument: str, bar_type: str) -> dict[int, oracle.Content]:
        return {
            start: bar
            for (name, kind, start), bar in self.bars.items()
            if (name, kind) == (instrument, bar_type)
        }


def _config(folder: Path, bootstrap: str, prefix: str, dsn: str) -> Path:
    topics = "".join(
        f'[[ticks]]\ntopic = "{prefix}ticks.{name}"\nfeed = "{feed}"\nvenue = "{venue}"\n'
        f'bars = {bars}\nidle = "1s"\n'
        for name, feed, venue, bars in [
            ("kraken", "csv", "KRAKEN", '["1s", "1m"]'),
            ("xrpeth", "csv", "BINANCE", '["1m", "5m"]'),
            *((venue.lower(), "binance", venue, '["1s", "1m"]') for venue in BINANCE),
        ]
    )
    path = folder / "tidegate.toml"
    path.write_text(
        f'broker = "{bootstrap}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\n'
        f'store = "{dsn}"\n{topics}'
    )
    return path


def _publish(bootstrap: str, topic: str, lines: list[bytes], key: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    for line in lines:
        producer.produce(topic, line, key=key)
        producer.poll(0)
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def market(kafka: str, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("market")
    topics = TestTopics(kafka)
    names = ["ticks.kraken", "ticks.xrpeth", *(f"ticks.{venue.lower()}" for venue in BINANCE), *OWN_TOPICS]
    for name in names:
        topics(name)
    expected: dict[oracle.Key, oracle.Content] = {}
    with schema(postgres) as dsn:
        config = _config(folder, kafka, topics.prefix, dsn)
        group = Group(kafka, f"{topics.prefix}tidegate-bars")
        with (
            Worker(folder, "a", config) as a,
            Worker(folder, "b", config) as b,
            Worker(folder, "c", config) as c,
        ):
            workers = [a, b, c]
            wait_assigned(group, 3, f"{topics.prefix}ticks.kraken", workers)
            wait_assigned(
                Group(kafka, f"{topics.prefix}tidegate-store"), 3, f"{topics.prefix}bars.v1", workers
            )
            shares = group.assignment(f"{topics.prefix}ticks.kraken")
            for name, symbol, path in (
                ("kraken", "KRAKEN:XBTUSDT", TICKS / "kraken_xbtusdt" / "trades.csv"),
                ("xrpeth", "BINANCE:XRPETH", TICKS / "binance_xrpeth" / "trades.csv.gz"),
            ):
                rows = [",".join(row.values()).encode() for row in oracle._rows(path)]
                _publish(kafka, f"{topics.prefix}ticks.{name}", rows, symbol)
            for venue, names in BINANCE.items():
                ticks = []
                for path in _recordings(names):
                    lines = oracle.binance_lines(path)
                    some = [oracle.binance_tick(line, venue) for line in lines]
                    _publish(kafka, f"{topics.prefix}ticks.{venue.lower()}", lines, some[0].instrument)
                    ticks += some
                expected |= oracle.bars_of(ticks, ("1s", "1m"))
            # Kraken 274 minutes and their seconds, XRPETH 2,469 and 706, and what the oracle says.
            until(lambda: expected.keys() <= stored(dsn).keys(), 60, "all Binance bars stored", every_s=0.5)
            until(
                lambda: _count(dsn, "KRAKEN:XBTUSDT", "1m") == 274, 30, "all Kraken bars stored", every_s=0.5
            )
            until(
                lambda: _count(dsn, "BINANCE:XRPETH", "1m") == 2469, 30, "all XRPETH bars stored", every_s=0.5
            )
            statuses = [worker.stop() for worker in workers]
            assert statuses == [0, 0, 0]
        yield Market(stored(dsn), expected, shares)


def _recordings(names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        yield from sorted((TICKS / "binance_ws_20240808").glob(f"{name}_*.trades.jsonl.gz"))


def _count(dsn: str, instrument: str, bar_type: str) -> int:
    return sum(key[:2] == (instrument, bar_type) for key in stored(dsn))


def test_three_workers_hold_the_four_partitions_and_none_more_than_two(market: Market) -> None:
    # Which of the two depends on who joins first: Faust's assignor moves no more than it must.
    assert sorted(map(len, market.shares)) in ([1, 1, 2], [0, 2, 2])
    assert set().union(*market.shares) == {0, 1, 2, 3}


def test_kraken_trades_give_the_273_whole_minutes_that_kraken_published(market: Market) -> None:
    ours = market.of("KRAKEN:XBTUSDT", "1m")
    first = min(ours)  # cut by the page of trades
    published = {s: bar for s, bar in oracle.published_kraken(TICKS).items() if first < s <= max(ours)}
    assert len(published) == 273
    assert {s: bar for s, bar in ours.items() if s != first} == published


@pytest.mark.parametrize(("bar_type", "count"), [("1m", 2469), ("5m", 706)])
def test_xrpeth_trades_give_the_bars_of_an_independent_program(
    market: Market, bar_type: str, count: int
) -> None:
    ours = {s: bar._replace(trade_count=None) for s, bar in market.of("BINANCE:XRPETH", bar_type).items()}
    published = oracle.published_xrpeth(TICKS, bar_type)
    assert len(published) == count
    assert ours == published


@pytest.mark.parametrize("venue", BINANCE)
def test_binance_recordings_give_the_bars_of_the_oracle(market: Market, venue: str) -> None:
    expected = {key: bar for key, bar in market.expected.items() if key[0].startswith(f"{venue}:")}
    ours = {key: bar for key, bar in market.bars.items() if key[0].startswith(f"{venue}:")}
    assert expected
    assert ours == expected
