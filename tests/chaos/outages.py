"""Three workers under load, while each of three brokers is killed in turn and comes back."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from chaos.arrivals import Arrivals
from chaos.quorum import Check, Node, Quorum, wait
from streams.reading import TopicReader
from streams.settings import Settings
from support.bars import wait_stored
from support.load import Load
from support.postgres import Postgres, running_postgres
from support.workers import OWN_TOPICS, Group, Worker

PARTITIONS = 6
WORKERS = 3
PREFIX = "md."
TICKS = f"{PREFIX}ticks.v1"
BARS = f"{PREFIX}bars.v1"


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be."""

    delivery: str = "at_least_once"
    ticks_per_s: int = 600
    instruments: int = 24
    steady_s: float = 12.0
    """How long all is well before a broker is killed."""
    away_s: float = 15.0
    outages: int = 3
    how: str = "kill"
    """Or freeze."""
    logs: Path | None = None
    """Where the workers' configuration and logs stay."""
    brokers: Mapping[str, str] = field(default_factory=dict)
    """Settings of the brokers, as the image takes them."""
    workers: str = ""
    """More lines for the workers' configuration."""


@dataclass
class Outage:
    """One broker's absence, and what was seen of it."""

    broker: int
    part: str
    killed: float
    started: float = 0.0
    in_sync: float = 0.0
    """When every replica was in sync again."""
    over: float = 0.0
    failover_s: float = 0.0
    """Until the other brokers led all partitions, and waited for no replica of this one."""
    gap_before_s: float = 0.0
    gap_s: float = 0.0
    """The longest time without any new bar, from the kill until the replicas were in sync."""
    gaps_before_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    """The same for each partition."""
    came_while_away: list[int] = field(default_factory=list)
    rebalances: int = 0
    lost: int = 0
    log: dict[str, int] = field(default_factory=dict)
    """Warnings and errors of the workers, by what they say."""


@dataclass
class Outcome:
    """What a run led to."""

    delivery: str
    outages: list[Outage] = field(default_factory=list)
    ticks: int = 0
    bars: int = 0
    dead_letters: int = 0
    wrong: list[str] = field(default_factory=list)


class Run:
    """Brokers, database, workers and load, and the outages."""

    def __init__(self, options: Options, check: Check) -> None:
        self.outcome = Outcome(options.delivery)
        self._options = options
        self._stop = check
        self._workers: list[Worker] = []
        self._began = time.monotonic()

    def go(self) -> Outcome:
        """The whole run. What is wrong is in the outcome; only a harness that fails raises."""
        with ExitStack() as stack:
            self._say("three brokers start ...")
            kafka = stack.enter_context(Quorum(self._stop, **self._options.brokers))
            postgres = stack.enter_context(running_postgres())
            kafka.create(PARTITIONS, TICKS, *(PREFIX + name for name in OWN_TOPICS))
            self._say(f"Apache Kafka {kafka.nodes[0].version}; {WORKERS} workers start ...")
            self._start_workers(stack, kafka, postgres)
            load = stack.enter_context(
                Load(kafka.bootstrap, TICKS, self._options.ticks_per_s, self._options.instruments)
            )
            arrivals = stack.enter_context(Arrivals(postgres.dsn, PARTITIONS))
            try:
                started = time.time()
                self._wait(lambda: arrivals.all_flow_since(started), 60, "bars of every partition")
                for node in kafka.nodes[: self._options.outages]:
                    self._outage(kafka, node, arrivals)
            except (TimeoutError, AssertionError) as exc:
                self.outcome.wrong.append(str(exc))
            load.stop()
            self._judge(kafka, postgres, load, arrivals)
        return self.outcome

    def _start_workers(self, stack: ExitStack, kafka: Quorum, postgres: Postgres) -> None:
        folder = self._options.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "tidegate.toml"
        config.write_text(
            f'broker = "{kafka.bootstrap}"\nstore = "{postgres.dsn}"\ndelivery = "{self._options.delivery}"\n'
            f'topic_prefix = "{PREFIX}"\n{self._options.workers}[[ticks]]\ntopic = "{TICKS}"\nbars = ["1s", "5s"]\n'
        )
        for n in range(1, WORKERS + 1):
            worker = Worker(folder.resolve(), f"worker-{n}", config.resolve())
            stack.callback(worker.kill)
            self._workers.append(worker)
        shares = [(Group(kafka.bootstrap, f"tidegate-{r}"), t) for r, t in (("bars", TICKS), ("store", BARS))]
        self._wait(lambda: all(_shared(group, t) for group, t in shares), 90, "every worker has its share")

    def _outage(self, kafka: Quorum, node: Node, arrivals: Arrivals) -> None:
        self._wait(kafka.balanced, 90, "every broker leads its share")
        self._for(self._options.steady_s)
        part = kafka.part_of(node)
        outage = Outage(node.node_id, str(part), time.time())
        steady = outage.killed - self._options.steady_s
        outage.gap_before_s = arrivals.longest_gap_s(steady, outage.killed - 1.5)
        outage.gaps_before_s = arrivals.longest_gaps_s(steady, outage.killed - 1.5)
        self.outcome.outages.append(outage)
        node.leave(self._options.how)
        self._say(f"broker {node.node_id} is gone ({self._options.how}): {part.brief}")
        outage.failover_s = self._while_away(kafka, node)
        outage.started = time.time()
        outage.came_while_away = arrivals.new_between(outage.killed, outage.started)
        self._say(f"broker {node.node_id} comes back")
        node.come_back(self._options.how)
        self._wait(kafka.in_sync, 180, f"all replicas are in sync after broker {node.node_id}")
        outage.in_sync = time.time()
        self._wait(lambda: arrivals.all_flow_since(outage.in_sync), 60, "bars of every partition")
        outage.over = time.time()
        self._read_logs(outage)
        outage.gap_s = arrivals.longest_gap_s(outage.killed, outage.in_sync)
        outage.gaps_s = arrivals.longest_gaps_s(outage.killed, outage.in_sync)
        self._say(
            f"in sync after {outage.in_sync - outage.killed:.0f} s; Kafka does without it after "
            f"{outage.failover_s:.1f} s; longest gap {outage.gap_s:.1f} s, "
            f"of a partition {max(outage.gaps_s):.1f} s (before {max(outage.gaps_before_s):.1f} s); "
            f"{outage.lost} partitions lost; {arrivals.bars:,} bars stored"
        )

    def _while_away(self, kafka: Quorum, node: Node) -> float:
        """Gives how long Kafka took to do without it; 0 where it never did."""
        began, failover_s = time.monotonic(), 0.0
        while (gone_s := time.monotonic() - began) < self._options.away_s:
            self._check()
            if not failover_s and kafka.does_without(node):
                failover_s = round(gone_s, 1)
            time.sleep(0.3)
        return failover_s

    def _read_logs(self, outage: Outage) -> None:
        said: Counter[str] = Counter()
        for worker in self._workers:
            for line in worker.log.read_text().splitlines():
                if (entry := _parsed(line)) is None:
                    continue
                at = datetime.fromisoformat(entry["timestamp"]).timestamp()
                if outage.killed <= at <= outage.over:
                    outage.lost += entry["event"] == "partition.lost"
                    outage.rebalances += entry["event"] == "bars.assigned"
                    if entry["level"] not in ("info", "debug"):
                        said[_summary(entry)] += 1
        outage.log = dict(said.most_common())

    def _judge(self, kafka: Quorum, postgres: Postgres, load: Load, arrivals: Arrivals) -> None:
        outcome = self.outcome
        outcome.ticks = len(load.sent)
        expected = load.expected()
        self._say(f"{outcome.ticks:,} ticks sent; {len(expected):,} bars are compared")
        try:
            wait_stored(postgres.dsn, expected, 120)
        except AssertionError as exc:
            outcome.wrong.append(str(exc))
        outcome.bars = len(expected)
        with TopicReader(Settings(broker=kafka.bootstrap), f"{PREFIX}ticks.dlq.v1") as letters:
            outcome.dead_letters = sum(1 for _ in letters.read(letters.partitions))
        outcome.wrong += _complaints(outcome)
        for worker in self._workers:
            if (status := worker.process.poll()) is not None:
                outcome.wrong.append(f"{worker.name} exited with status {status}")
            elif (status := worker.stop(60)) != 0:
                outcome.wrong.append(f"{worker.name} ended with status {status} when it was told to stop")

    def _check(self) -> None:
        self._stop()
        for worker in self._workers:
            if worker.process.poll() is not None:
                raise AssertionError(f"{worker.name} left:\n{worker.log.read_text()[-2000:]}")

    def _wait(self, condition: Any, timeout_s: float, what: str) -> None:
        wait(condition, timeout_s, what, self._check)

    def _for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check()
            time.sleep(0.1)

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {line}", file=sys.stderr, flush=True)


def _complaints(outcome: Outcome) -> list[str]:
    wrong = []
    for outage in outcome.outages:
        if outage.lost:
            wrong.append(f"broker {outage.broker}: {outage.lost} partitions were lost")
        if not all(outage.came_while_away):
            still = [p for p, came in enumerate(outage.came_while_away) if not came]
            wrong.append(f"broker {outage.broker}: no new bars of partitions {still} while it was away")
    if outcome.dead_letters:
        wrong.append(f"{outcome.dead_letters} dead letters")
    return wrong


def _shared(group: Group, topic: str) -> bool:
    try:
        return group.owned_by(WORKERS, topic, PARTITIONS)
    except (KafkaException, TimeoutError):  # the first group waits until there is a topic of offsets
        return False


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


#: What differs from one line to the next that says the same.
_VARIES = (
    (r" \(and \d+ more like it\)", ""),
    (r"127\.0\.0\.1'?[:,] ?\d+", "HOST:PORT"),
    (r"\b(node|id|from) \d", r"\1 N"),
)


def _summary(entry: dict[str, Any]) -> str:
    told = f"{entry['event']} {entry.get('error', '')}".strip().partition("\n")[0]
    for pattern, plain in _VARIES:
        told = re.sub(pattern, plain, told)
    return f"{entry['level']} {entry.get('logger', '')}: {told[:140]}"
