"""A loop on Apache Kafka and PostgreSQL, its workers as processes: what a test of backpressure watches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from support.kafka import TestTopics
from support.load import Load
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker

TICKS_PER_S = 2000
INSTRUMENTS = 60
ALL = range(4)
PACED = str(Path(__file__).with_name("paced_store.py"))


class Scene:
    """Topics, a configuration for all workers, and what the groups have done."""

    def __init__(self, kafka: str, topics: TestTopics, dsn: str, folder: Path, *lines: str) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            topics(name)
        self.bootstrap, self.prefix, self.folder = kafka, topics.prefix, folder
        self.ticks, self.feedback = f"{topics.prefix}ticks.v1", f"{topics.prefix}feedback.v1"
        self.bars_group = Group(kafka, f"{topics.prefix}tidegate-bars")
        self.store_group = Group(kafka, f"{topics.prefix}tidegate-store")
        self.config = folder / "tidegate.toml"
        more = "".join(f"{line}\n" for line in lines)
        self.config.write_text(
            f'broker = "{kafka}"\ntopic_prefix = "{topics.prefix}"\ngroup = "{topics.prefix}tidegate"\n'
            f'store = "{dsn}"\nheartbeat = "500ms"\nsession_timeout = "6s"\ncheckpoint = "200ms"\n{more}'
            f'[[ticks]]\ntopic = "{self.ticks}"\nbars = ["1s", "5s"]\ngrace = "1s"\nidle = "1s"\n'
        )

    def worker(self, name: str, roles: str, program: Sequence[str] = ("-m", "agents")) -> Worker:
        return Worker(self.folder, name, self.config, "--roles", roles, program=program)

    def load(self, ticks_per_s: int = TICKS_PER_S, instruments: int = INSTRUMENTS) -> Load:
        return Load(self.bootstrap, self.ticks, ticks_per_s, instruments)

    def committed(self) -> list[int]:
        return self.bars_group.committed(self.ticks)

    def keeps_up(self, load: Load) -> bool:
        return sum(self.committed()) > max(TICKS_PER_S, len(load.sent) - 2 * TICKS_PER_S)

    def rates(self, over_s: float = 6.0) -> list[float]:
        """Records a second of each partition, between two commits of it; 0 where there is none."""
        noted: list[list[tuple[float, int]]] = [[] for _ in ALL]
        last, began = self.committed(), time.monotonic()

        def look() -> bool:
            now, seen = time.monotonic(), self.committed()
            for partition, offset in enumerate(seen):
                if offset != last[partition]:
                    noted[partition].append((now, offset))
                    last[partition] = offset
            return now - began > over_s

        until(look, over_s + 5, "it was measured", every_s=0.01)
        return [
            (at[-1][1] - at[0][1]) / (at[-1][0] - at[0][0]) if len(at) > 1 else float(len(at)) for at in noted
        ]


def held(workers: Sequence[Worker]) -> dict[int, float]:
    """The scale of each partition that was told last, of those below 1."""
    told = sorted(
        (entry["timestamp"], entry["partition"], entry["scale"])
        for worker in workers
        for event in ("partition.paused", "partition.slowed", "partition.resumed")
        for entry in worker.events(event)
    )
    return {partition: scale for partition, scale in {p: s for _, p, s in told}.items() if scale < 1}
