"""A store worker whose database stalls while more bars come than its queue holds, by policy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer

from schemas.bar import Bar, bar_key, encode_bar
from schemas.feedback import Feedback, decode_feedback
from support.bars import execute, schema
from support.kafka import TestTopics, records
from support.proxy import Proxy
from support.store_contract import START_NS, a_bar
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

PARTITIONS, CAPACITY, WRITE_BATCH = 4, 600, 100
EACH = 400
"""Bars of each symbol that come at once."""
SYMBOLS = tuple(f"S{n}" for n in range(8))


class Site:
    """Topics, a database behind a proxy, and bars that nobody makes from ticks: no brake holds them back."""

    def __init__(self, topics: TestTopics, dsn: str, proxy: Proxy, folder: Path) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            topics(name, PARTITIONS)
        self.prefix, self.bootstrap, self.folder = topics.prefix, topics.bootstrap, folder
        self.bars, self.dsn, self.proxy = f"{self.prefix}bars.v1", dsn, proxy
        self.through = dsn.replace(f":{urlsplit(dsn).port}/", f":{proxy.port}/")
        self.group = Group(self.bootstrap, f"{self.prefix}tidegate-store")
        self.produced: Counter[str] = Counter()
        self._ends = [0] * PARTITIONS

    def worker(self, name: str, overflow: str) -> Worker:
        lines = {
            "broker": self.bootstrap,
            "topic_prefix": self.prefix,
            "group": f"{self.prefix}tidegate",
            "store": self.through,
            "overflow": overflow,
            "heartbeat": "300ms",
            "session_timeout": "10s",
            "drain_timeout": "5s",
            "queue_capacity": CAPACITY,
            "write_batch": WRITE_BATCH,
        }
        config = self.folder / f"{name}.toml"
        config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
        return Worker(self.folder, name, config, "--roles", "store")

    def produce(self, each: int) -> None:
        """So many more bars of each symbol, all different; a symbol lives on one partition."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for _ in range(each):
            for number, symbol in enumerate(SYMBOLS):
                partition = number % PARTITIONS
                bar = _bar(symbol, partition, self.produced[f"BINANCE:{symbol}"])
                producer.produce(self.bars, encode_bar(bar), key=bar_key(bar), partition=partition)
                self.produced[bar.instrument] += 1
                self._ends[partition] += 1
            producer.poll(0)
        assert producer.flush(30) == 0

    def stored(self) -> Counter[str]:
        rows = execute(self.dsn, "SELECT instrument, count(*) FROM bars GROUP BY instrument")
        return Counter({row[0]: row[1] for row in rows})

    @property
    def ends(self) -> list[int]:
        return list(self._ends)

    def committed_to_the_end(self) -> bool:
        return self.group.committed(self.bars, PARTITIONS) == self._ends

    def feedback(self) -> list[Feedback]:
        """All that was said so far."""
        topic = f"{self.prefix}feedback.v1"
        said = [
            decode_feedback(m.value()) for p in range(PARTITIONS) for m in records(self.bootstrap, topic, p)
        ]
        return sorted(said, key=lambda feedback: feedback.ts)


def _bar(symbol: str, partition: int, n: int) -> Bar:
    return a_bar(
        symbol=symbol,
        type="1s",
        start_ns=START_NS + n * 10**9,
        end_ns=START_NS + (n + 1) * 10**9,
        source_partition=partition,
        last_offset=100 + n,
    )


@pytest.fixture
def site(topics: TestTopics, postgres: str, tmp_path: Path) -> Iterator[Site]:
    """Everything but the worker."""
    url = urlsplit(postgres)
    with schema(postgres) as dsn, Proxy(url.hostname or "", url.port or 5432) as proxy:
        yield Site(topics, dsn, proxy, tmp_path)


def _flowing(site: Site, *workers: Worker) -> None:
    """Wait until the workers store what comes."""
    wait_assigned(site.group, len(workers), site.bars, [*workers])
    site.produce(10)
    until(lambda: site.committed_to_the_end() and site.stored() == site.produced, 30, "bars are stored")


def _dropped(workers: list[Worker]) -> Counter[str]:
    """What the log says so far, by instrument."""
    dropped: Counter[str] = Counter()
    for worker in workers:
        for line in worker.events("store.dropped"):
            assert sum(line["instruments"].values()) == line["dropped"]
            assert (line["level"], line["other_instruments"]) == ("warning", 0)
            dropped.update(line["instruments"])
    return dropped


def _newest_of_each(site: Site) -> set[int]:
    rows = execute(site.dsn, "SELECT instrument, max(start_ns) FROM bars GROUP BY instrument")
    return {(row[1] - START_NS) // 10**9 for row in rows}


@pytest.mark.parametrize(
    ("overflow", "joins"), [("drop_oldest", False), ("drop_newest", False), ("drop_oldest", True)]
)
@pytest.mark.end_to_end
@pytest.mark.covers("overflow")
def test_what_is_dropped_while_the_database_stalls_is_counted_exactly(
    site: Site, overflow: str, joins: bool
) -> None:
    with ExitStack() as running:
        workers = [running.enter_context(site.worker("first", overflow))]
        _flowing(site, *workers)
        site.proxy.stall()
        for _ in range(3):
            before = _dropped(workers).total()
            site.produce(EACH)
            least = before + EACH * len(SYMBOLS) - CAPACITY - WRITE_BATCH
            until(lambda least=least: _dropped(workers).total() >= least, 30, "the worker says that it drops")
        committed = site.group.committed(site.bars, PARTITIONS)
        assert sum(committed) < sum(site.ends), "what waits behind the stall is acknowledged"
        if joins:  # what was dropped and not acknowledged comes again, to either of them
            workers.append(running.enter_context(site.worker("second", overflow)))
            wait_assigned(site.group, 2, site.bars, workers)
            until(lambda: workers[0].events("store.dropped.again"), 20, "the first has given it up")
            until(lambda: workers[1].events("store.dropped"), 20, "the second drops")
        site.proxy.resume()
        until(site.committed_to_the_end, 60, "all offsets are committed")
        stored = site.stored()
        assert [worker.stop() for worker in workers] == [0] * len(workers)

    dropped = _dropped(workers)
    again = sum(line["given_up"] for worker in workers for line in worker.events("store.dropped.again"))
    assert (again > 0) is joins
    if joins:
        # The write that hung through the rebalance may end well, and the same bars be dropped by who owns them now.
        twice = stored.total() + dropped.total() - again - site.produced.total()
        assert 0 <= twice <= WRITE_BATCH
    else:
        assert stored + dropped == site.produced
    lines = [worker.events("store.dropped") for worker in workers]
    assert {line["policy"] for of_worker in lines for line in of_worker} == {overflow}
    assert all(line["where"][0].startswith(f"{site.bars}[") for of_worker in lines for line in of_worker)
    said = site.feedback()
    last = {feedback.coordinator_id: feedback.dropped for feedback in said}
    assert sum(last.values()) == dropped.total() - again
    assert max(feedback.queue_size for feedback in said) <= CAPACITY + WRITE_BATCH
    newest = site.produced["BINANCE:S0"] - 1
    assert (newest in _newest_of_each(site)) is (overflow == "drop_oldest")


def test_a_worker_that_stops_at_a_full_queue_says_so_and_another_one_stores_everything(site: Site) -> None:
    with site.worker("stops", "error") as stops:
        _flowing(site, stops)
        site.proxy.stall()
        for _ in range(4):
            site.produce(100)
        assert stops.process.wait(60) == 1
        text = stops.log.read_text()
        assert "Traceback" not in text
        last = text.splitlines()[-2:]
        assert last[0].startswith("tidegate: the store's queue is full: it holds ")
        assert f"its capacity is {CAPACITY}, and {site.bars}[" in last[0]
        assert last[1].startswith("  hint: ")
        assert 'overflow = "block"' in last[1]
        assert not stops.events("store.dropped")
    committed = site.group.committed(site.bars, PARTITIONS)
    assert sum(committed) < sum(site.ends)
    site.proxy.resume()
    with site.worker("waits", "block") as waits:
        until(site.committed_to_the_end, 60, "all offsets are committed")
        assert site.stored() == site.produced
        assert waits.stop() == 0
        assert not waits.events("store.dropped")
