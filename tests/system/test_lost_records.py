"""Ticks that are gone before they were read are never passed over in silence."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from support.bars import schema, stored
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

BASE = 1_723_161_240 * 10**9


class Bench:
    """One partition of ticks, a worker's settings, and what both come to."""

    def __init__(self, topics: TestTopics, dsn: str, folder: Path) -> None:
        self.topics, self.dsn, self.folder = topics, dsn, folder
        self.ticks = topics("ticks.v1", partitions=1)
        for name in OWN_TOPICS:
            topics(name, partitions=1)
        self.group = Group(topics.bootstrap, f"{topics.prefix}tidegate-bars")
        self.sent = 0

    def worker(self, **options: str) -> Worker:
        config = self.folder / "tidegate.toml"
        config.write_text(
            f'broker = "{self.topics.bootstrap}"\ntopic_prefix = "{self.topics.prefix}"\n'
            f'group = "{self.topics.prefix}tidegate"\nstore = "{self.dsn}"\n'
            f'session_timeout = "6s"\n[[ticks]]\ntopic = "{self.ticks}"\nbars = ["1m"]\n'
            + "".join(f'{name} = "{value}"\n' for name, value in options.items())
        )
        return Worker(self.folder, f"worker-{len(list(self.folder.glob('worker-*.log')))}", config)

    def send(self, count: int) -> None:
        """Ticks a minute apart: each of them is a bar, which the next one closes."""
        producer = Producer({"bootstrap.servers": self.topics.bootstrap})
        for n in range(self.sent, self.sent + count):
            ts_ns = BASE + n * 60 * 10**9
            value = f'{{"symbol":"A","ts_ns":{ts_ns},"recv_ns":{ts_ns},"price":"1","size":"1"}}'
            producer.produce(self.ticks, value, key="A", partition=0)
        self.sent += count
        assert producer.flush(10) == 0

    def delete_before(self, offset: int) -> None:
        """As retention does."""
        at = TopicPartition(self.ticks, 0, offset)
        self.topics.admin.delete_records([at])[at].result(10)

    def wait_read(self, offset: int) -> None:
        until(lambda: self.group.committed(self.ticks, 1) == [offset], 30, f"{offset} is committed")

    def minutes(self) -> set[int]:
        return {(start_ns - BASE) // (60 * 10**9) for _, _, start_ns in stored(self.dsn)}


@pytest.fixture
def bench(topics: TestTopics, postgres: str, tmp_path: Path) -> Iterator[Bench]:
    with schema(postgres) as dsn:
        yield Bench(topics, dsn, tmp_path)


def ended(worker: Worker) -> str:
    """Why a worker exited by itself."""
    until(lambda: worker.process.poll() is not None, 60, f"{worker.name} ends")
    assert worker.process.returncode == 1
    text = worker.log.read_text()
    assert "Traceback" not in text
    return text


def test_a_retention_that_overtook_a_stopped_worker_is_an_error_with_the_exact_loss(bench: Bench) -> None:
    bench.send(10)
    with bench.worker() as worker:
        bench.wait_read(10)
        assert worker.stop() == 0
    bench.send(20)
    bench.delete_before(17)
    with bench.worker() as worker:
        said = ended(worker)
    assert f"{bench.ticks}[0]: 7 records were deleted before they were read: offsets 10 to 16" in said
    assert 'lost = \\"skip\\"' in said or 'lost = "skip"' in said
    assert bench.group.committed(bench.ticks, 1) == [10], "nothing is passed over"
    with bench.worker(lost="skip") as worker:
        bench.wait_read(30)
        (loss,) = worker.events("ticks.lost")
        assert (loss["count"], loss["first_offset"], loss["last_offset"]) == (7, 10, 16)
        until(lambda: bench.minutes() >= {*range(9), *range(17, 28)}, 30, "what is left is stored")
        assert worker.stop() == 0


def test_a_retention_that_overtakes_a_worker_that_runs_is_told_as_well(bench: Bench) -> None:
    bench.send(10)
    with bench.worker() as worker:
        bench.wait_read(10)
        while worker.process.poll() is None:
            worker.process.send_signal(signal.SIGSTOP)
            read = bench.sent
            bench.send(20)
            bench.delete_before(bench.sent - 5)
            worker.process.send_signal(signal.SIGCONT)
            # A fetch that was under way may have been answered before the records were deleted.
            until(
                lambda: (
                    worker.process.poll() is not None or bench.group.committed(bench.ticks, 1) == [bench.sent]
                ),
                30,
                "the worker ends, or has read all",
            )
        gone = f"15 records were deleted before they were read: offsets {read} to {read + 14}"
        assert gone in ended(worker)


def test_a_log_that_is_shorter_than_what_was_read_of_it_is_an_error(bench: Bench) -> None:
    bench.send(10)
    with bench.worker() as worker:
        bench.wait_read(10)
        assert worker.stop() == 0
    remake(bench)
    bench.send(3)
    with bench.worker() as worker:
        said = ended(worker)
    assert "of a topic that is gone" in said
    assert "tidegate state reset" in said


def test_a_topic_made_anew_is_an_error_however_long_it_has_become(bench: Bench) -> None:
    bench.send(10)
    with bench.worker() as worker:
        bench.wait_read(10)
        assert worker.stop() == 0
    remake(bench)
    bench.send(50)
    with bench.worker() as worker:
        assert f"{bench.ticks}[0]: the state ends at offset 9 of a topic that is gone" in ended(worker)


def remake(bench: Bench) -> None:
    admin: Any = bench.topics.admin
    admin.delete_topics([bench.ticks])[bench.ticks].result(30)
    until(lambda: bench.ticks not in admin.list_topics(timeout=5).topics, 30, "the topic is gone")
    deadline = time.monotonic() + 30
    while True:
        try:
            bench.topics("ticks.v1", partitions=1)
            return
        except Exception:
            assert time.monotonic() < deadline
