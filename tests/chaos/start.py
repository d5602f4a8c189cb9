"""From a few options to an outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.cluster import Cluster, Setup
from chaos.faults import ALL
from chaos.flawed import FlawedLoad
from chaos.judge import Outcome
from chaos.run import Run
from chaos.schedule import Kind, schedule


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be."""

    seed: int = 7
    faults: int = 10
    kinds: tuple[Kind, ...] = tuple(fault.kind for fault in ALL)
    delivery: str = "at_least_once"
    ticks_per_s: int = 2000
    recorded_per_s: int = 60
    instruments: int = 40
    hurry: float = 0.25

    @property
    def setup(self) -> Setup:
        """A compacted topic cannot tell whether a version came twice."""
        return Setup(delivery=self.delivery, compact=self.delivery != "exactly_once")


def load_of(cluster: Cluster, options: Options) -> FlawedLoad:
    """The load of a run."""
    return FlawedLoad(
        cluster.kafka.address,
        f"{cluster.prefix}ticks.v1",
        f"{cluster.prefix}ticks.spot",
        seed=options.seed,
        ticks_per_s=options.ticks_per_s,
        recorded_per_s=options.recorded_per_s,
        instruments=options.instruments,
        duplicates=cluster.setup.dedupe,
    )


def run_on(
    cluster: Cluster,
    options: Options,
    say: Callable[[str], None] = lambda line: None,
    check: Callable[[], None] = lambda: None,
) -> Outcome:
    """A run on a cluster that is there; `check` is called often, and raises when it is to end."""
    steps = schedule(options.seed, options.faults, options.kinds, hurry=options.hurry)
    return Run(cluster, load_of(cluster, options), steps, say=say, check=check).go()


def run_chaos(
    options: Options, say: Callable[[str], None], check: Callable[[], None], logs: Path | None = None
) -> Outcome:
    """A run on a cluster of its own; the workers' logs stay in the folder `logs`."""
    say("Apache Kafka and PostgreSQL start ...")
    with Cluster(options.setup, logs) as cluster:
        say(f"{options.setup.workers} workers start, {options.ticks_per_s} ticks/s ...")
        return run_on(cluster, options, say, check)
