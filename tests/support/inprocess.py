"""The command line inside the test's process: the same exit codes and output, without a start of a second."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from streams.cli import main


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left."""

    status: int
    out: str
    err: str


Cli = Callable[..., Done]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``tidegate ARGUMENTS``, of the commands that need no agents."""

    def no_agents() -> None:
        raise AssertionError("this command asked for the agents")

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["tidegate", *map(str, arguments)])
        with _logging_as_it_was(), pytest.raises(SystemExit) as exited:
            main(no_agents)
        captured = capsys.readouterr()
        return Done(int(exited.value.code or 0), captured.out, captured.err)

    return run


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Commands set logging up, for a standard error that is gone when the test ends."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
