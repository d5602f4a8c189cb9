"""The faults: each says how it begins and how it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from chaos.cluster import Cluster
from chaos.schedule import Kind, Step

#: Kafka's shortest session: a worker that is silent for longer loses its partitions.
SESSION_TIMEOUT_S = 6


class Fault(ABC):
    """Something that breaks, and what mends it. Neither fails because another fault is at work."""

    kind: ClassVar[Kind]

    def __init__(self, step: Step, cluster: Cluster) -> None:
        self.step = step
        self.cluster = cluster
        self.slot = cluster.slots[step.worker]

    @abstractmethod
    def apply(self) -> None:
        """Break it."""

    def heal(self) -> None:  # noqa: B027  most need no mending
        """Mend it."""


class Kill(Fault):
    """The supervisor starts another one, as a container engine would."""

    kind = Kind("kill -9", "worker")

    def apply(self) -> None:
        self.slot.kill()


class Terminate(Fault):
    """As at a deployment: it drains, leaves, and comes back."""

    kind = Kind("SIGTERM", "worker")

    def apply(self) -> None:
        self.slot.terminate()


class Freeze(Fault):
    """The group goes on without a worker that wakes up later and thinks it owns its partitions."""

    kind = Kind("SIGSTOP", "worker", (SESSION_TIMEOUT_S + 2.0, SESSION_TIMEOUT_S + 6.0))

    def apply(self) -> None:
        self.frozen = self.slot.freeze()

    def heal(self) -> None:
        self.slot.thaw(self.frozen)


class OneMore(Fault):
    """A worker joins, and leaves again."""

    kind = Kind("one worker more", "more", (5.0, 10.0))

    def apply(self) -> None:
        self.cluster.spare.start()

    def heal(self) -> None:
        self.cluster.spare.leave()


class KillBroker(Fault):
    """As a power cut, but that the disk has what the broker wrote."""

    kind = Kind("broker killed", "broker", (0.5, 6.0))

    def apply(self) -> None:
        self.cluster.kafka.kill()

    def heal(self) -> None:
        self.cluster.kafka.resume()


class RestartBroker(Fault):
    """In order, as at an upgrade."""

    kind = Kind("broker restarted", "broker", (0.1, 2.0))

    def apply(self) -> None:
        self.cluster.kafka.halt()

    def heal(self) -> None:
        self.cluster.kafka.resume()


class CutLink(Fault):
    """The worker's connections to the broker are reset, and new ones refused for a while."""

    kind = Kind("broker link cut", "link", (0.1, 9.0))

    def apply(self) -> None:
        self.slot.link.cut()

    def heal(self) -> None:
        self.slot.link.resume()


class StallLink(Fault):
    """The worker's connections to the broker stay open, and nothing moves."""

    kind = Kind("broker link stalled", "link", (2.0, 12.0))

    def apply(self) -> None:
        self.slot.link.stall()

    def heal(self) -> None:
        self.slot.link.resume()


class SlowLink(Fault):
    """Each piece of data takes its time between the worker and the broker."""

    kind = Kind("broker link slow", "link", (4.0, 10.0))

    def apply(self) -> None:
        self.slot.link.slow(0.05)

    def heal(self) -> None:
        self.slot.link.resume()


class KillDatabase(Fault):
    """As a power cut."""

    kind = Kind("database killed", "database", (0.5, 6.0))

    def apply(self) -> None:
        self.cluster.postgres.kill()

    def heal(self) -> None:
        self.cluster.postgres.resume()


class StallDatabase(Fault):
    """The worker's connections to the database stay open, and nothing moves."""

    kind = Kind("database link stalled", "storage", (3.0, 12.0))

    def apply(self) -> None:
        self.slot.storage.stall()

    def heal(self) -> None:
        self.slot.storage.resume()


ALL: tuple[type[Fault], ...] = (
    Kill,
    Terminate,
    Freeze,
    OneMore,
    KillBroker,
    RestartBroker,
    CutLink,
    StallLink,
    SlowLink,
    KillDatabase,
    StallDatabase,
)
#: Those that tell most, for a short run.
TELLING: tuple[type[Fault], ...] = (Kill, Freeze, CutLink, KillBroker, KillDatabase)

_by_kind = {fault.kind: fault for fault in ALL}


def fault_of(step: Step, cluster: Cluster) -> Fault:
    """The fault that a step of the schedule stands for."""
    return _by_kind[step.kind](step, cluster)
