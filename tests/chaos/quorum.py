"""Three Kafka brokers, each of them a controller, too: what a cluster is that may lose one."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic, PartitionMetadata

from support.containers import HOST, free_port
from support.kafka import Kafka, answers

BROKERS = 3

#: Called while waiting; raises when there is no point in waiting any more.
Check = Callable[[], None]


def wait(condition: Callable[[], bool], timeout_s: float, what: str, check: Check) -> None:
    """Poll; TimeoutError says `what` did not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:.0f} s still not: {what}")
        time.sleep(0.2)


class Node(Kafka):
    """One broker and controller of three, in the host's network."""

    def __init__(self, node_id: int, controllers: list[int], **settings: str) -> None:
        super().__init__()
        self.node_id = node_id
        self.ports.clear()
        # The broker's settings are Kafka's own but for those that bear on durability, and on so small a machine.
        self.with_kwargs(mem_limit="1200m", network_mode="host")
        voters = ",".join(f"{n}@{HOST}:{port}" for n, port in enumerate(controllers, 1))
        self.with_envs(
            KAFKA_NODE_ID=str(node_id),
            KAFKA_LISTENERS=f"EXTERNAL://{self.address},CONTROLLER://{HOST}:{controllers[node_id - 1]}",
            KAFKA_CONTROLLER_QUORUM_VOTERS=voters,
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="3",
            KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS="6",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="3",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="2",
            KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS="6",
            KAFKA_MIN_INSYNC_REPLICAS="2",  # also of the topic of offsets, which has no setting of its own
            # Leaders go back where they belong, as in any cluster, but without five minutes of waiting.
            KAFKA_LEADER_IMBALANCE_CHECK_INTERVAL_SECONDS="5",
            KAFKA_HEAP_OPTS="-Xms256m -Xmx512m",
            **settings,
        )

    def leads_quorum(self) -> bool:
        """Whether it is the active controller, as its log has it."""
        log = self.get_wrapped_container().logs(tail=20_000).decode(errors="replace")
        states = re.findall(r"RaftManager id=\d+\] Completed transition to (\w+)", log)
        return bool(states) and states[-1].startswith("Leader")

    def leave(self, how: str) -> None:
        """Be killed, or freeze: then connections stay, and nobody answers, as where a machine is cut off."""
        container = self.get_wrapped_container()
        container.pause() if how == "freeze" else container.kill()

    def come_back(self, how: str) -> None:
        """Go on, with the log that it has; returns at once."""
        container = self.get_wrapped_container()
        container.unpause() if how == "freeze" else container.start()


class Part(NamedTuple):
    """What the loss of a broker takes away."""

    controller: bool
    led: dict[str, list[int]]
    """The partitions that it leads, by topic."""

    @property
    def brief(self) -> str:
        """For a line of progress."""
        led = sum(map(len, self.led.values()))
        return f"{'the active controller, ' if self.controller else ''}leader of {led} partitions"

    def __str__(self) -> str:
        led = "; ".join(f"{topic}{numbers}" for topic, numbers in sorted(self.led.items()))
        return f"{'the active controller, ' if self.controller else ''}leads {led}"


class Quorum:
    """The cluster, as a context."""

    def __init__(self, check: Check, **settings: str) -> None:
        self._check = check
        controllers = [free_port() for _ in range(BROKERS)]
        self.nodes = [Node(n, controllers, **settings) for n in range(1, BROKERS + 1)]
        self._stack = ExitStack()

    @property
    def bootstrap(self) -> str:
        """All three."""
        return ",".join(node.address for node in self.nodes)

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                self._check()
                self._stack.enter_context(node)
            for node in self.nodes:
                wait(lambda node=node: answers(node.address), 120, f"{node.address} answers", self._check)  # type: ignore[misc]
            self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            wait(lambda: self._alive() == BROKERS, 60, "three brokers know each other", self._check)
        except BaseException:
            for node in self.nodes:
                if sys.exc_info()[0] is not KeyboardInterrupt and node._container is not None:
                    log = node.get_wrapped_container().logs(tail=15).decode(errors="replace")
                    print(f"--- broker {node.node_id}\n{log}", file=sys.stderr)
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def create(self, partitions: int, *names: str) -> None:
        """Topics that stay writable, and lose nothing, without one broker."""
        new = [
            NewTopic(name, partitions, replication_factor=3, config={"min.insync.replicas": "2"})
            for name in names
        ]
        for future in self.admin.create_topics(new, operation_timeout=30).values():
            future.result(60)

    def in_sync(self) -> bool:
        """Whether every replica of every partition is in sync."""
        return self._all(lambda p: len(p.isrs) == BROKERS)

    def balanced(self) -> bool:
        """Whether each partition is led by the broker that is meant to."""
        return self._all(lambda p: p.leader == p.replicas[0])

    def does_without(self, gone: Node) -> bool:
        """Whether the others have become leaders of all, and wait for it no more."""
        others = ",".join(node.address for node in self.nodes if node is not gone)
        # A client that is new asks one that it is told of.
        admin = AdminClient({"bootstrap.servers": others, "log_level": 0})
        return self._all(lambda p: p.leader not in (-1, gone.node_id) and gone.node_id not in p.isrs, admin)

    def part_of(self, node: Node) -> Part:
        """What depends on a broker."""
        led: dict[str, list[int]] = {}
        for topic, p in self._partitions():
            if p.leader == node.node_id:
                led.setdefault(topic, []).append(p.id)
        return Part(node.leads_quorum(), {topic: sorted(numbers) for topic, numbers in led.items()})

    def _alive(self) -> int:
        return len(self.admin.list_topics(timeout=10).brokers)

    def _all(self, test: Callable[[PartitionMetadata], bool], admin: AdminClient | None = None) -> bool:
        partitions = self._partitions(admin)
        return bool(partitions) and all(test(p) for _, p in partitions)

    def _partitions(self, admin: AdminClient | None = None) -> list[tuple[str, PartitionMetadata]]:
        """None while nobody answers."""
        try:
            topics = (admin or self.admin).list_topics(timeout=5).topics
        except KafkaException:
            return []
        return [(name, p) for name, topic in topics.items() for p in topic.partitions.values()]
