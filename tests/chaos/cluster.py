"""Apache Kafka, PostgreSQL and workers, with a proxy on each link between them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from confluent_kafka import KafkaException

from chaos.readings import PARTITIONS
from chaos.slots import Exit, Slot
from streams.settings import Settings
from support.containers import HOST
from support.kafka import MORTAL, TestTopics, running_kafka
from support.postgres import running_postgres
from support.proxy import Proxy
from support.workers import OWN_TOPICS, Group

GRACE_S = 1
#: So that the broker compacts during the run what a lag or a large segment would spare for an hour.
EAGER = {
    "cleanup_policy": "compact",
    "segment_bytes": 1 << 20,
    "segment_ms": 4000,
    "min_cleanable_dirty_ratio": 0.01,
    "min_compaction_lag_ms": 0,
    "delete_retention_ms": 1000,
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What runs."""

    delivery: str = "at_least_once"
    workers: int = 3
    compact: bool = True
    """Whether the bars topic is compacted; the state topic always is."""
    dedupe: bool = True
    """Whether a trade id counts once."""
    program: Sequence[str] = ("-m", "agents")
    """What is run with Python instead of the product: a worker that is broken on purpose."""
    settings: str = ""
    """More lines for the workers' configuration."""


def _topics_of(prefix: str, dedupe: bool) -> str:
    return (
        f'[[ticks]]\ntopic = "{prefix}ticks.v1"\nbars = ["1s", "1m"]\ngrace = "{GRACE_S}s"\nidle = "1s"\n'
        f'retain = "60s"\ndedupe = "{"90s" if dedupe else "off"}"\n'
        f'[[ticks]]\ntopic = "{prefix}ticks.spot"\nfeed = "binance"\nvenue = "SPOT"\nbars = ["1s", "1m"]\n'
        f'grace = "{GRACE_S}s"\nidle = "1s"\ndedupe = "{"360s" if dedupe else "off"}"\n'
    )


class Cluster:
    """Everything that faults are done to. All of it goes when the context ends."""

    def __init__(self, setup: Setup, logs: Path | None = None) -> None:
        self.setup = setup
        self._logs = logs
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open(self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> None:
        folder = self._logs or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-chaos-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"W{n + 1}" for n in range(self.setup.workers + 1)]
        links = {name: stack.enter_context(Proxy()) for name in names}
        storages = {name: stack.enter_context(Proxy()) for name in names}
        self.kafka = stack.enter_context(
            running_kafka(
                dict.fromkeys(names, "PLAINTEXT"),
                {name: link.port for name, link in links.items()},
                **MORTAL,
                KAFKA_LOG_CLEANER_BACKOFF_MS="500",
                KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS="1000",
            )
        )
        self.postgres = stack.enter_context(running_postgres())
        self.topics = TestTopics(self.kafka.address)
        for name in ("ticks.v1", "ticks.spot", *OWN_TOPICS):
            compacted = name == "bars.state.v1" or (name == "bars.v1" and self.setup.compact)
            self.topics(name, PARTITIONS, **(EAGER if compacted else {}))
        for name in names:
            links[name].target = (HOST, int(self.kafka.addresses[name].rpartition(":")[2]))
            storages[name].target = (HOST, self.postgres.host_port)
        #: The last one is for a worker more.
        self.slots = [
            Slot(f"worker-{name}", folder, links[name], storages[name], self.setup.program) for name in names
        ]
        for slot in self.slots:
            slot.config.write_text(self._config(slot))
            stack.callback(slot.close)

    @property
    def spare(self) -> Slot:
        """Where the worker more runs."""
        return self.slots[-1]

    @property
    def prefix(self) -> str:
        """Of the names of topics."""
        return self.topics.prefix

    def start_workers(self) -> None:
        """All but the spare one."""
        for slot in self.slots[:-1]:
            slot.start()

    def compacted(self, name: str) -> int:
        """Offsets of a topic, over all partitions, that the broker has compacted."""
        told: bytes = self.kafka.exec(["cat", "/var/lib/kafka/data/cleaner-offset-checkpoint"]).output
        rows = [line.split() for line in told.decode().splitlines()]
        return sum(int(row[2]) for row in rows if row[0] == f"{self.prefix}{name}" and len(row) == 3)

    def balanced(self) -> bool:
        """Whether the workers share all partitions, in both roles."""
        members = self.setup.workers
        groups = (("bars", "ticks.v1"), ("store", "bars.v1"))
        try:
            return all(
                Group(self.kafka.address, f"{self.prefix}tidegate-{role}").owned_by(
                    members, f"{self.prefix}{topic}", PARTITIONS
                )
                for role, topic in groups
            )
        except KafkaException:
            return False

    def look(self) -> list[tuple[Slot, Exit]]:
        """What has exited since the last look; it is started again."""
        exits: list[tuple[Slot, Exit]] = []
        for slot in self.slots:
            slot.look(lambda slot, exited: exits.append((slot, exited)))
        return exits

    def _config(self, slot: Slot) -> str:
        dsn = urlsplit(self.postgres.dsn)._replace(netloc=f"tidegate:tidegate@{HOST}:{slot.storage.port}")
        delivery = f'delivery = "{self.setup.delivery}"\n' if "delivery" in Settings.model_fields else ""
        return (
            f'broker = "{HOST}:{slot.link.port}"\ntopic_prefix = "{self.prefix}"\n'
            f'group = "{self.prefix}tidegate"\nstore = "{dsn.geturl()}"\nsession_timeout = "6s"\n'
            f"{delivery}{self.setup.settings}{_topics_of(self.prefix, self.setup.dedupe)}"
        )
