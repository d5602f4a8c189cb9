"""Feeds that go as fast as the rate topic lets them, on Apache Kafka: a store decides what is produced."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.rate import decode_rate
from support.cli import assert_one_clear_line, tidegate
from support.coordinator import Coordinator
from support.kafka import TestTopics, records
from support.scene import ALL, Scene, held
from support.wait import until
from support.workers import ROOT, environment, wait_assigned

pytestmark = pytest.mark.kafka

NOBODY = "postgresql://nobody@127.0.0.1:1/none"
"""There is no store in these tests: somebody else speaks for it."""


class Ends:
    """Where the partitions of a topic end."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "log_level": 0})

    def __call__(self) -> list[int]:
        tps = [TopicPartition(self._topic, partition) for partition in ALL]
        return [self._consumer.get_watermark_offsets(tp, timeout=10)[1] for tp in tps]

    def rates(self, over_s: float = 4.0) -> list[float]:
        """Records a second that come into each."""
        began, first = time.monotonic(), self()
        until(lambda: time.monotonic() - began >= over_s, over_s + 5, "it was measured", every_s=0.01)
        last, took_s = self(), time.monotonic() - began
        return [(b - a) / took_s for a, b in zip(first, last, strict=True)]


@contextmanager
def feeding(folder: Path, prefix: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that feeds, what it says in `feed.out` and `feed.err`."""
    with (folder / "feed.out").open("wb") as out, (folder / "feed.err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment(TIDEGATE_TOPIC_PREFIX=prefix),
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def follow_the_store(scene: Scene, feed: subprocess.Popen[bytes], total: float) -> None:
    """Partition 0 at a half, 1 paused, the others as they were; then all as they were."""
    ends = Ends(scene.bootstrap, scene.ticks)
    is_heard = _is_heard(scene, ends)
    with (
        Coordinator(scene.bootstrap, scene.feedback) as store,
        scene.worker("bars", "bars") as bars,
    ):
        wait_assigned(scene.bars_group, 1, scene.ticks, [bars])
        until(lambda: min(ends()) > 0, 30, "it feeds")
        full = ends.rates()
        assert sum(full) == pytest.approx(total, rel=0.1)

        store.say({0: "soft", 1: "hard", 2: "ok", 3: "ok"})
        until(lambda: held([bars]) == {0: 0.5, 1: 0.0}, 10, "a half of 0, nothing of 1")
        until(lambda: is_heard(1), 10, "the feed has heard it", every_s=0.3)
        slowed = ends.rates()
        assert slowed[0] == pytest.approx(0.5 * full[0], rel=0.15)
        assert slowed[1] == 0
        assert slowed[2:] == pytest.approx(full[2:], rel=0.15)

        store.say({0: "hard", 1: "soft"})
        until(lambda: held([bars]) == {0: 0.0, 1: 0.5}, 10, "nothing of 0, a half of 1")
        until(lambda: is_heard(0), 10, "the feed has heard it", every_s=0.3)
        slowed = ends.rates()
        assert slowed[0] == 0
        assert slowed[1] == pytest.approx(0.5 * full[1], rel=0.15)

        store.say(dict.fromkeys(ALL, "ok"))
        until(lambda: not held([bars]), 10, "all is open")
        stood = ends()
        until(lambda: min(b - a for a, b in zip(stood, ends(), strict=True)) > 0, 10, "all are fed")
        assert ends.rates() == pytest.approx(full, rel=0.15)
        assert bars.stop() == 0
    assert feed.poll() is None


def _is_heard(scene: Scene, ends: Ends) -> Callable[[int], bool]:
    last: dict[int, int] = {}

    def look(paused: int) -> bool:
        """Whether nothing has come into the partition since it was looked at last."""
        end = ends()[paused]
        stands, last[paused] = last.get(paused) == end, end
        return stands

    return look


@pytest.mark.alone
def test_tidegate_feed_obeys(kafka: str, topics: TestTopics, tmp_path: Path) -> None:
    scene = Scene(kafka, topics, NOBODY, tmp_path)
    command = f"-m agents feed --topic {scene.ticks} --rate 4000/s --instruments 40 --obey --json".split()
    with feeding(tmp_path, topics.prefix, *command, "--config", str(scene.config)) as feed:
        follow_the_store(scene, feed, 4000)
        feed.send_signal(signal.SIGTERM)
        assert feed.wait(30) == 0
    told = (tmp_path / "feed.err").read_text().splitlines()
    assert sorted(told[:2]) == ["partition 0: 0.5 of the rate (soft)", "partition 1: paused (hard)"]
    assert sorted(told[-2:]) == ["partition 0: all (ok)", "partition 1: all (ok)"]
    account = json.loads((tmp_path / "feed.out").read_text())
    assert account["published"] == sum(Ends(kafka, scene.ticks)())
    assert account["held_back"] > 4000


def test_a_feed_that_starts_under_pressure_knows_it_and_without_workers_the_last_word_holds(
    kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    scene = Scene(kafka, topics, NOBODY, tmp_path)
    with Coordinator(kafka, scene.feedback) as store, scene.worker("bars", "bars") as bars:
        wait_assigned(scene.bars_group, 1, scene.ticks, [bars])
        store.say({0: "hard", 1: "soft"})
        until(lambda: held([bars]) == {0: 0.0, 1: 0.5}, 20, "0 is paused, 1 slowed")
        # What a worker does, it logs first: killed there, it would have told nobody.
        until(lambda: _told(scene, 0) == 0, 10, "the rate topic says that 0 is paused")
        until(lambda: _told(scene, 1) == 0.5, 10, "the rate topic says that 1 is slowed")
        bars.kill()
    done = tidegate(
        *f"feed --topic {scene.ticks} --rate 800/s --instruments 40 --seconds 2 --obey --json".split(),
        "--config",
        scene.config,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    fed = Ends(kafka, scene.ticks)()
    assert fed[0] == 0
    assert min(fed[1:]) > 0
    assert sum(fed) == json.loads(done.stdout)["published"]


def _told(scene: Scene, partition: int) -> float | None:
    """The scale that the rate topic holds last of a partition."""
    said = records(scene.bootstrap, f"{scene.prefix}rate.v1", partition)
    return decode_rate(said[-1].value()).scale if said else None


def test_without_a_rate_topic_it_says_so(kafka: str, topics: TestTopics, tmp_path: Path) -> None:
    ticks = topics("ticks.v1")
    done = tidegate(
        "feed",
        "--topic",
        ticks,
        "--obey",
        "--broker",
        kafka,
        cwd=tmp_path,
        TIDEGATE_TOPIC_PREFIX=topics.prefix,
    )
    assert_one_clear_line(done, f"{topics.prefix}rate.v1")


@pytest.mark.alone
def test_the_example_in_the_docs_obeys(kafka: str, topics: TestTopics, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "backpressure.md").read_text()
    example = re.search(r"<!-- obeying feed -->\n```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    (tmp_path / "obeying_feed.py").write_text(example[1])
    scene = Scene(kafka, topics, NOBODY, tmp_path)
    with feeding(tmp_path, topics.prefix, "obeying_feed.py", kafka, scene.ticks) as feed:
        follow_the_store(scene, feed, 400)
    assert (tmp_path / "feed.err").read_text() == ""
