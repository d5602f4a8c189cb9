"""Starting `batch_worker` processes, and checking what they and the broker say against each other."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Producer

from support.batch_worker import Job, ranges
from support.wait import until
from support.workers import ROOT, Group, environment


def produce(
    bootstrap: str, topic: str, count: int, partitions: Iterable[int] = range(4), **config: Any
) -> None:
    """Produce `count` small records to each partition, and wait until all are written."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0, **config})
    for i in range(count):
        for partition in partitions:
            producer.produce(topic, b"%d" % i, partition=partition)
        if i % 1000 == 0:
            producer.poll(0)
    assert producer.flush(30) == 0


@contextmanager
def flowing(bootstrap: str, topic: str, per_s: int, partitions: int = 4) -> Iterator[list[int]]:
    """Produce a steady stream of records; yields the counts by partition, exact once the block is left."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0})
    sent = [0] * partitions
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.02):
            for partition in range(partitions):
                for _ in range(per_s // 50 // partitions):
                    producer.produce(topic, b"%d" % sent[partition], partition=partition)
                    sent[partition] += 1
            producer.poll(0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        assert producer.flush(30) == 0


class Process:
    """One worker process: what it said, and orders to it."""

    def __init__(self, folder: Path, name: str, job: Job) -> None:
        self.name = name
        self._heard: list[dict[str, Any]] = []
        self._runs: defaultdict[tuple[str, str, int], list[list[int]]] = defaultdict(list)
        self._offsets: defaultdict[tuple[str, str, int], list[int]] = defaultdict(list)
        self._read_to = 0
        self._lock = threading.Lock()
        self._looks = itertools.count()
        self._log = Path(job.log)
        self._log.touch()
        self._job = folder / f"{name}.job"
        self._job.write_text(job.dumps())
        self.stderr = folder / f"{name}.stderr"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.batch_worker", str(self._job)],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
            )

    def said(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What it said until now, of one kind or all."""
        with self._lock:
            self._listen()
            return [entry for entry in self._heard if kind in (None, entry["kind"])]

    def offsets(self, kind: str, topic: str, partition: int) -> list[int]:
        """The offsets it took or acked, in order."""
        with self._lock:
            self._listen()
            offsets = self._offsets[kind, topic, partition]
            for first, last in self._runs.pop((kind, topic, partition), ()):
                offsets.extend(range(first, last + 1))
            return offsets.copy()

    def _listen(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                entry = json.loads(line)
                self._heard.append(entry)
                if "ranges" in entry:
                    self._runs[entry["kind"], *entry["tp"]].extend(entry["ranges"])

    def order(self, do: str, **values: Any) -> None:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
        self.process.stdin.flush()

    def ordered(self, answer: str, do: str, **values: Any) -> dict[str, Any]:
        """Tell it to do something, and wait until it says that it was done."""
        before = len(self.said(answer))
        self.order(do, **values)
        return until(
            lambda: self.alive() and self.said(answer)[before:], 10, f"{self.name}: {answer}", 0.005
        )[0]

    def look(self, topic: str) -> dict[int, dict[str, Any]]:
        """Position, and what is buffered and in flight, of each partition of a topic that it owns."""
        answer = self.ordered("look", "look", id=next(self._looks))
        split = {tuple(name.split("|")): state for name, state in answer["partitions"].items()}
        return {int(partition): state for (name, partition), state in split.items() if name == topic}

    def owned(self, topic: str) -> set[int]:
        """The partitions it was assigned last and has recovered."""
        assignments = [e for e in self.said() if e["kind"] in ("assigned", "revoked", "recovered")]
        if not assignments or assignments[-1]["kind"] != "recovered":
            return set()
        return {partition for name, partition in assignments[-1]["partitions"] if name == topic}

    def alive(self) -> bool:
        """True, or an AssertionError with its last words."""
        code = self.process.poll()
        assert code is None, f"{self.name} has left with {code}: {self.stderr.read_text()[-3000:]}"
        return True

    def stop(self, timeout_s: float = 20) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


class Crew:
    """The workers of one group and what they did between them."""

    def __init__(self, bootstrap: str, folder: Path, group: str) -> None:
        self.bootstrap = bootstrap
        self.group = Group(bootstrap, f"{group}-t")
        self.members: list[Process] = []
        self._folder = folder
        self._name = group

    def start(self, batch_topics: tuple[str, ...] | str, **knobs: Any) -> Process:
        """Start one more worker."""
        topics = (batch_topics,) if isinstance(batch_topics, str) else batch_topics
        name = f"worker-{len(self.members)}"
        log = str(self._folder / f"{name}.log")
        job = Job(broker=self.bootstrap, group=self._name, log=log, batch_topics=topics, **knobs)
        self.members.append(process := Process(self._folder, name, job))
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for member in self.members:
            if member.process.poll() is None:
                member.kill()
            assert member.process.stdin is not None
            member.process.stdin.close()

    def share(self, topic: str, *members: Process, partitions: int = 4) -> None:
        """Wait until each of these workers owns partitions, and together they own all of them."""

        def shared() -> bool:
            owned = [member.owned(topic) for member in members if member.alive()]
            return all(owned) and sorted(p for ps in owned for p in ps) == list(range(partitions))

        until(shared, 30, f"{len(members)} workers share {topic}", 0.02)

    def took(self, topic: str, partition: int) -> list[int]:
        """Offsets that any worker took, sorted, with repetitions."""
        return sorted(offset for m in self.members for offset in m.offsets("took", topic, partition))

    def acked(self, topic: str, partition: int) -> set[int]:
        """Offsets that any worker acknowledged."""
        return {offset for m in self.members for offset in m.offsets("acked", topic, partition)}

    def wait_for(self, topic: str, counts: list[int], kind: str = "acked", timeout_s: float = 30) -> None:
        """Wait until offsets 0 to count - 1 of each partition were taken or acknowledged by somebody."""

        def complete() -> bool:
            seen = self.acked if kind == "acked" else self.took
            return all(len(set(seen(topic, p))) >= count for p, count in enumerate(counts))

        until(complete, timeout_s, f"all of {topic} is {kind}", 0.05)
        for partition, count in enumerate(counts):
            assert set(self.took(topic, partition)) == set(range(count))

    def wait_committed(self, topic: str, counts: list[int], timeout_s: float = 10) -> None:
        """Wait until exactly these offsets are committed."""
        until(
            lambda: self.group.committed(topic, len(counts)) == counts,
            timeout_s,
            f"{counts} of {topic} are committed, not {self.group.committed(topic, len(counts))}",
        )

    @contextmanager
    def watched(self, topic: str, partitions: int = 4) -> Iterator[dict[int, set[int]]]:
        """Look at the committed offsets all the while: none may exceed what the workers said is acknowledged.

        Yields the different offsets seen, by partition.
        """
        seen: dict[int, set[int]] = defaultdict(set)
        wrong: list[str] = []
        stop = threading.Event()

        def check() -> None:
            for partition, committed in enumerate(self.group.committed(topic, partitions)):
                if committed > 0 and committed not in seen[partition]:
                    seen[partition].add(committed)
                    acked = self.acked(topic, partition)
                    if missing := [offset for offset in range(committed) if offset not in acked]:
                        wrong.append(f"[{partition}] {committed} is committed, {ranges(missing)} not acked")

        def run() -> None:
            while not stop.wait(0.02):
                check()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()
        check()
        assert not wrong, wrong


def contiguous(offsets: list[int]) -> list[list[int]]:
    """The offsets in the order taken, cut where the next is not one higher."""
    runs: list[list[int]] = []
    for offset in offsets:
        if runs and offset == runs[-1][-1] + 1:
            runs[-1].append(offset)
        else:
            runs.append([offset])
    return runs
