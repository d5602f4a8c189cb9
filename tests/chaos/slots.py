"""One place for a worker: its links, its process, and a supervisor's view of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.proxy import Proxy
from support.workers import ROOT, environment

Process = subprocess.Popen[bytes]

#: As a container engine does, a little after the exit.
RESTART_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker that ended."""

    worker: str
    at: float
    status: int
    meant: bool
    """We sent it the signal."""
    crashed: bool
    """It left a traceback, which no fault excuses: what a worker cannot bear it says in one line."""
    last_lines: str


class Slot:
    """A worker behind proxies of its own. Starts it anew when it exits, as long as it is wanted."""

    def __init__(
        self,
        name: str,
        folder: Path,
        link: Proxy,
        storage: Proxy,
        program: Sequence[str] = ("-m", "agents"),
    ) -> None:
        self.name = name
        #: To the broker and to the database.
        self.link, self.storage = link, storage
        self.config = folder / f"{name}.toml"
        self.log = folder / f"{name}.log"
        self.wanted = False
        self.starts = 0
        self.process: Process | None = None
        self._program = program
        self._log_from = 0
        self._ended: set[int] = set()
        self._start_at = 0.0

    def start(self) -> None:
        """Want a worker here from now."""
        self.wanted = True
        if self.process is None:
            self._spawn()

    def leave(self) -> None:
        """Want none: the one that is here drains and leaves."""
        self.wanted = False
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM; another one is started when it has left."""
        self._signal(signal.SIGTERM)

    def freeze(self) -> Process | None:
        """SIGSTOP; gives what to `thaw`."""
        if (process := self._running()) is not None:
            process.send_signal(signal.SIGSTOP)
        return process

    def thaw(self, process: Process | None) -> None:
        """SIGCONT, if it is still there."""
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)

    def look(self, on_exit: Callable[[Slot, Exit], None]) -> None:
        """Notice an exit, and start a worker where one is wanted."""
        if self.process is not None and (status := self.process.poll()) is not None:
            lines = self._lines()
            crashed = any(line.startswith("Traceback") for line in lines)
            meant = self.process.pid in self._ended
            exited = Exit(self.name, time.time(), status, meant, crashed, "".join(lines[-6:]))
            self.process = None
            self._start_at = time.monotonic() + RESTART_AFTER_S
            on_exit(self, exited)
        if self.process is None and self.wanted and time.monotonic() >= self._start_at:
            self._spawn()

    def close(self) -> None:
        """Kill what is left."""
        self.wanted = False
        if self.process is not None:
            self.process.kill()  # a stopped one, too
            self.process.wait()

    def _running(self) -> Process | None:
        return self.process if self.process is not None and self.process.poll() is None else None

    def _signal(self, signum: signal.Signals) -> None:
        if (process := self._running()) is not None:
            self._ended.add(process.pid)
            process.send_signal(signum)

    def _spawn(self) -> None:
        self.starts += 1
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._program, "worker", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for the harness, which then ends its workers
            )

    def _lines(self) -> list[str]:
        """What the process said."""
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace").splitlines(keepends=True)
