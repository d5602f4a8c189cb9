"""Worker processes as users run them, and what Kafka knows of their groups."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from support.wait import until

ROOT = Path(__file__).parents[2]
COLUMNS_BYTES = 110 << 20
OWN_TOPICS = ("bars.v1", "bars.state.v1", "feedback.v1", "rate.v1", "ticks.dlq.v1")


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, without the settings of whoever runs the tests."""
    theirs = (
        "TIDEGATE_",
        "PYTEST_",
    )  # a pytest that a test starts runs in one process, whatever this one does
    clean = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    path = os.pathsep.join(filter(None, (str(ROOT), clean.get("PYTHONPATH", ""))))
    return {**clean, "PYTHONPATH": path, **variables}


class Worker:
    """One ``tidegate worker`` process, or another command that serves; its log is JSON lines in a file."""

    def __init__(
        self,
        folder: Path,
        name: str,
        config: Path,
        *arguments: str,
        program: Sequence[str] = ("-m", "agents"),
        command: Sequence[str] = ("worker",),
        **variables: str,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *command, "--config", str(config), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(**variables),
                cwd=folder,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines with this event."""
        found = []
        for line in self.log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("event") == name:
                found.append(entry)
        return found

    def rss(self) -> int:
        """Resident memory, bytes, without what reads columns: that is loaded once, after many ticks."""
        columns = 0
        if self.events("columns.loading"):
            until(lambda: self.events("columns.on") + self.events("columns.off"), 60, "columns are loaded")
            columns = COLUMNS_BYTES
        return int(psutil.Process(self.process.pid).memory_info().rss) - columns

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.kill()
        if exc[0] is not None:
            print(f"--- {self.name}: exit {self.process.returncode}\n{self.log.read_text()[-6000:]}")


class Group:
    """A consumer group as the broker sees it."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.name = name
        config = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._admin = AdminClient(config)
        self._onlooker = Consumer(
            {**config, "group.id": name, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
        )

    def assignment(self, topic: str) -> list[set[int]]:
        """The partitions of a topic that each member owns."""
        group = self._admin.describe_consumer_groups([self.name])[self.name].result(10)
        return [
            {tp.partition for tp in member.assignment.topic_partitions if tp.topic == topic}
            for member in group.members
        ]

    def owned_by(self, members: int, topic: str, partitions: int = 4) -> bool:
        """Whether so many members share all partitions of a topic."""
        owned = self.assignment(topic)
        return len(owned) == members and sum(map(len, owned)) == partitions == len(set().union(*owned))

    def committed(self, topic: str, partitions: int = 4) -> list[int]:
        """Committed offsets; -1001 where there is none."""
        # An admin client would end this process where the broker is killed meanwhile: see `Groups.committed`.
        tps = self._onlooker.committed([TopicPartition(topic, p) for p in range(partitions)], 10)
        return [tp.offset for tp in sorted(tps, key=lambda tp: tp.partition)]

    def ends(self, topic: str, partitions: int = 4) -> list[int]:
        """Where the partitions of a topic end."""
        latest = OffsetSpec.latest()
        asked = self._admin.list_offsets({TopicPartition(topic, p): latest for p in range(partitions)})
        told = sorted((tp.partition, future.result(10).offset) for tp, future in asked.items())
        return [offset for _, offset in told]

    def reaches_the_ends(self, topic: str, partitions: Iterable[int]) -> Callable[[], bool]:
        """Whether it has consumed all that was in those when this was called.

        Who has been at half rate for some seconds needs as many again for it, however busy the machine is;
        a rate over some seconds would also depend on how far behind its first and its last commit were.
        """
        ends = self.ends(topic)

        def look() -> bool:
            committed = self.committed(topic)
            return all(committed[partition] >= ends[partition] for partition in partitions)

        return look


class Settled:
    """Positions that stay the same for longer than a checkpoint and a commit may take."""

    def __init__(self, group: Group, topic: str, partitions: set[int]) -> None:
        self._look = lambda: [group.committed(topic)[p] for p in sorted(partitions)]
        self._last: list[int] = []
        self._since = 0.0

    def __call__(self) -> list[int] | None:
        positions = self._look()
        if positions != self._last:
            self._last, self._since = positions, time.monotonic()
        return positions if time.monotonic() - self._since > 3.0 else None


def wait_assigned(group: Group, members: int, topic: str, workers: list[Worker]) -> None:
    """Wait until the group has so many members and every partition an owner."""

    def ready() -> bool:
        for worker in workers:
            assert worker.process.poll() is None, f"{worker.name} left: {worker.log.read_text()[-3000:]}"
        return group.owned_by(members, topic)

    until(ready, 60, f"{members} workers share {topic}")
