"""Workers whose database is away: at the start, when they leave, and when they lose a partition."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from schemas.bar import decode_bar
from schemas.feedback import Feedback, Level, decode_feedback
from support.bars import schema, stored, wait_stored
from support.cli import assert_one_clear_line, tidegate
from support.kafka import TestTopics
from support.load import Load
from support.oracle import Key
from support.proxy import Proxy
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

TICKS_PER_S = 1000
DRAIN_S = 3


class Site:
    """Topics, a database behind a proxy, and workers."""

    def __init__(self, topics: TestTopics, dsn: str, proxy: Proxy, folder: Path) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            topics(name)
        self.prefix, self.bootstrap, self.folder = topics.prefix, topics.bootstrap, folder
        self.ticks, self.bars = f"{self.prefix}ticks.v1", f"{self.prefix}bars.v1"
        self.dsn, self.proxy = dsn, proxy
        self.through = dsn.replace(f":{urlsplit(dsn).port}/", f":{proxy.port}/")
        self.bars_group = Group(self.bootstrap, f"{self.prefix}tidegate-bars")
        self.store_group = Group(self.bootstrap, f"{self.prefix}tidegate-store")

    def worker(self, role: str, name: str, store: str, **settings: str) -> Worker:
        lines = {
            "broker": self.bootstrap,
            "topic_prefix": self.prefix,
            "group": f"{self.prefix}tidegate",
            "store": store,
            "session_timeout": "10s",
            "drain_timeout": f"{DRAIN_S}s",
            "heartbeat": "300ms",
        } | settings
        config = self.folder / f"{name}.toml"
        config.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
            + "queue_capacity = 160\nwrite_batch = 50\n"
            + f'[[ticks]]\ntopic = "{self.ticks}"\nbars = ["1s", "5s"]\ngrace = "1s"\nidle = "1s"\n'
        )
        return Worker(self.folder, name, config, "--roles", role)

    def feedback(self) -> list[Feedback]:
        """All that was said so far."""
        return [decode_feedback(message.value()) for message in self._read("feedback.v1")]

    def bars_upto(self, offsets: list[int]) -> set[Key]:
        """The keys of the bars that were published before these offsets."""
        before = [decode_bar(m.value()) for m in self._read("bars.v1") if m.offset() < offsets[m.partition()]]
        return {(bar.instrument, bar.type, bar.start_ns) for bar in before}

    def _read(self, name: str) -> list[Message]:
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "none", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(f"{self.prefix}{name}", p, 0) for p in range(4)])
        found: list[Message] = []
        ended: set[int] = set()
        while len(ended) < 4:
            for message in consumer.consume(1000, 0.2):
                if message.error() is None:
                    found.append(message)
                else:
                    ended.add(message.partition())
        consumer.close()
        return found


@pytest.fixture
def site(kafka: str, topics: TestTopics, postgres: str, tmp_path: Path) -> Iterator[Site]:
    """Everything but the workers."""
    url = urlsplit(postgres)
    with schema(postgres) as dsn, Proxy(url.hostname or "", url.port or 5432) as proxy:
        yield Site(topics, dsn, proxy, tmp_path)


def _paused(bars: Worker) -> set[int]:
    changes = sorted(
        (entry["timestamp"], entry["partition"], entry["event"])
        for event in ("partition.paused", "partition.slowed", "partition.resumed")
        for entry in bars.events(event)
    )
    return {p for p, event in {p: event for _, p, event in changes}.items() if event == "partition.paused"}


@pytest.mark.end_to_end
@pytest.mark.covers("recovery")
@pytest.mark.covers("retries")
def test_a_worker_that_finds_no_database_holds_the_ticks_back_and_goes_on_when_it_is_there(
    site: Site,
) -> None:
    site.proxy.cut()
    with site.worker("bars", "bars", site.dsn) as bars, site.worker("store", "store", site.through) as store:
        wait_assigned(site.bars_group, 1, site.ticks, [bars, store])
        wait_assigned(site.store_group, 1, site.bars, [bars, store])
        with Load(site.bootstrap, site.ticks, TICKS_PER_S, instruments=40) as load:
            until(lambda: _paused(bars) == {0, 1, 2, 3}, 20, "all ticks are held back")
            told = store.events("store.waiting")
            assert told
            assert told[0]["level"] == "warning"
            assert "postgresql://tidegate:***@" in told[0]["error"]
            assert {said.level for said in site.feedback()} == {Level.hard}
            assert store.process.poll() is None
            site.proxy.resume()
            until(lambda: not _paused(bars), 40, "the ticks run again")
            until(lambda: len(stored(site.dsn)) > 50, 40, "bars are stored", every_s=0.3)
        wait_stored(site.dsn, load.expected(), 60)
        assert store.events("store.back")
        assert [bars.stop(), store.stop()] == [0, 0]


def test_leaving_while_the_database_is_away_takes_the_drain_timeout_and_commits_nothing_unwritten(
    site: Site,
) -> None:
    with site.worker("bars", "bars", site.dsn) as bars, site.worker("store", "store", site.through) as store:
        wait_assigned(site.store_group, 1, site.bars, [bars, store])
        with Load(site.bootstrap, site.ticks, TICKS_PER_S, instruments=40) as load:
            until(lambda: len(stored(site.dsn)) > 50, 40, "bars are stored", every_s=0.3)
            for fail in (site.proxy.stall, site.proxy.cut):
                fail()
                until(lambda: _paused(bars) == {0, 1, 2, 3}, 30, "all ticks are held back")
                started = time.monotonic()
                assert store.stop() == 0
                assert time.monotonic() - started < DRAIN_S + 4
                committed = site.store_group.committed(site.bars)
                assert sum(committed) > 0
                assert site.bars_upto(committed) <= stored(site.dsn).keys()
                site.proxy.resume()
                store = site.worker("store", f"again-{fail.__name__}", site.through)
                wait_assigned(site.store_group, 1, site.bars, [bars, store])
                until(lambda: not _paused(bars), 40, "the ticks run again")
        wait_stored(site.dsn, load.expected(), 60)
        assert [bars.stop(), store.stop()] == [0, 0]


@pytest.mark.parametrize("leaves", [True, False], ids=["leaving", "sharing"])
def test_a_stalled_worker_takes_its_pause_with_it_when_its_partitions_go_elsewhere(
    site: Site, leaves: bool
) -> None:
    long = {"feedback_ttl": "10m"}
    with (
        site.worker("bars", "bars", site.dsn, **long) as bars,
        site.worker("store", "stalled", site.through, **long) as stalled,
    ):
        wait_assigned(site.store_group, 1, site.bars, [bars, stalled])
        with Load(site.bootstrap, site.ticks, TICKS_PER_S, instruments=40) as load:
            until(lambda: len(stored(site.dsn)) > 50, 40, "bars are stored", every_s=0.3)
            site.proxy.stall()
            until(lambda: _paused(bars) == {0, 1, 2, 3}, 30, "all ticks are held back")
            with site.worker("store", "healthy", site.dsn, **long) as healthy:
                wait_assigned(site.store_group, 2, site.bars, [bars, stalled, healthy])
                spared = set(
                    until(lambda: healthy.events("store.assigned"), 10, "it knows")[-1]["partitions"]
                )
                until(lambda: _paused(bars) == {0, 1, 2, 3} - spared, 30, f"only {spared} run")
                if leaves:
                    assert stalled.stop() == 0
                    wait_assigned(site.store_group, 1, site.bars, [bars, healthy])
                else:
                    site.proxy.resume()
                until(lambda: not _paused(bars), 30, "all run")
                load.stop()
                wait_stored(site.dsn, load.expected(), 60)
                assert healthy.stop() == 0
        assert [bars.stop(), stalled.stop()] == [0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace(":tidegate@", ":wrong@"), "password authentication failed"),
        (lambda url: url.replace("/tidegate?", "/absent?"), '"absent" does not exist'),
        (lambda url: url + "&sslmode=require", "speaks no TLS"),
    ],
    ids=["password", "database", "tls"],
)
def test_what_the_user_must_mend_ends_a_worker_at_once(
    site: Site, change: Callable[[str], str], words: str
) -> None:
    with site.worker("store", "store", change(site.dsn)) as store:
        assert store.process.wait(20) == 1
        assert words in store.log.read_text()


def test_a_run_without_its_database_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "ticks.csv").write_text("symbol,ts_ns,recv_ns,price,size,trade_id,side,cond\n")
    started = time.monotonic()
    done = tidegate("run", "ticks.csv", "--store", "postgresql://u:pw@127.0.0.1:1/db", cwd=tmp_path)
    assert_one_clear_line(done, "connection refused")
    assert time.monotonic() - started < 15
