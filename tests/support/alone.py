"""Tests marked `alone` have the machine for themselves where pytest-xdist runs several at once.

The processes of one run share a lock on a file: every test holds it together with others, one marked `alone`
holds it alone. The kernel frees it when a process dies. Such tests come first, and one hands the machine to the
next, so that the other processes wait once. A run in one process knows nothing of this.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

INPUT = "tidegate_machine"


class Machine:
    """A readers-writer lock of processes; `folder` is theirs alone."""

    def __init__(self, folder: Path) -> None:
        self._queue = (folder / "queue").open("w")
        self._lock = (folder / "lock").open("w")

    def take(self, *, alone: bool) -> None:
        """Wait for it: whoever waits for the others to end keeps them from starting anew."""
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def give_back(self) -> None:
        """Let others have it. It is no error not to hold it."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give it back for good."""
        self._lock.close()
        self._queue.close()


class Turns:
    """What a process that runs tests beside others does."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._kept = False

    @pytest.hookimpl(trylast=True)  # what -m leaves out is nobody's concern
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: not is_alone(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Iterator[None]:  # fixtures are set up and torn down in here as well
        if not self._kept:
            self._machine.take(alone=is_alone(item))
        self._kept = is_alone(item) and nextitem is not None and is_alone(nextitem)
        try:
            return (yield)
        finally:
            if not self._kept:
                self._machine.give_back()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._machine.close()


class Host:
    """What the process that starts the others does."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-tests-")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[INPUT] = self._folder.name

    def pytest_unconfigure(self) -> None:
        self._folder.cleanup()


def is_alone(item: pytest.Item) -> bool:
    """Whether no other test may run beside it."""
    return item.get_closest_marker("alone") is not None


def register(config: pytest.Config) -> None:
    """Have tests take turns, if there are several processes."""
    told = getattr(config, "workerinput", None)
    if told is not None:
        config.pluginmanager.register(Turns(Machine(Path(told[INPUT]))))
    elif config.getoption("numprocesses", None):
        config.pluginmanager.register(Host())
