"""A worker inside a program of somebody else, with the face of market-data-pipeline's `UnifiedRuntime`.

Programs import it from `agents.runtime`, which knows the agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

from schemas.health import HealthComponent, HealthState
from streams.runtime import crashed, running
from streams.settings import Settings, load_settings
from streams.worker import Worker

MODE = "kafka"
"""Where the pipeline says `classic` or `dag`."""

State = Literal["stopped", "starting", "running", "stopping", "failed"]

_STATUS = {HealthState.healthy: "OK", HealthState.degraded: "DEGRADED", HealthState.unhealthy: "ERROR"}


class UnifiedRuntime:
    """Starts and stops a worker's roles in this process and event loop, and says how they are.

    `status` and `health` answer in every state and never raise. A runtime that has stopped or failed can be
    started again. Settings are read from the file and the environment, as `tidegate worker` does, unless they
    are given.
    """

    def __init__(self, make: Callable[[Settings], Worker], settings: Settings | None = None) -> None:
        self._make = make
        self._settings = settings
        self._state: State = "stopped"
        self._error: BaseException | None = None
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._told_to_stop = asyncio.Event()

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def mode(self) -> str:
        """Always the same: there is one way to run."""
        return MODE

    async def start(self) -> None:
        """Return once partitions are assigned and their state is read. Raises `TidegateError` where it cannot.

        Does nothing where it has been started.
        """
        if self._task is not None and not self._task.done():
            return
        self._state, self._error = "starting", None
        self._started.clear()
        self._told_to_stop.clear()
        task = self._task = asyncio.create_task(self._run())
        started = asyncio.create_task(self._started.wait())
        try:
            await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            started.cancel()
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """Drain what was taken, commit and leave the groups. Does nothing where it does not run."""
        task = self._task
        if task is None or task.done():
            return
        if self._state == "starting":
            task.cancel()
        self._told_to_stop.set()
        await asyncio.wait([task])

    async def run(self) -> None:
        """Start it, and wait until it is stopped. Raises what it failed with."""
        await self.start()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._error is not None:
            raise self._error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _run(self) -> None:
        try:
            settings = self._settings or load_settings()
            worker = self._worker = self._make(settings)
            async with running(worker.app):
                self._state = "running"
                self._started.set()
                await self._until_told(worker)
                self._state = "stopping"
            self._state = "stopped"
        except asyncio.CancelledError:
            self._state = "stopped"
        except Exception as exc:  # raised to whoever starts or runs it, and told by health
            self._state, self._error = "failed", exc

    async def _until_told(self, worker: Worker) -> None:
        told = asyncio.create_task(self._told_to_stop.wait())
        crash = asyncio.create_task(crashed(worker.app))
        try:
            await asyncio.wait([told, crash], return_when=asyncio.FIRST_COMPLETED)
            if crash.done():
                self._error = crash.result()
                raise self._error
        finally:
            told.cancel()
            crash.cancel()

    async def status(self) -> dict[str, Any]:
        """`mode`, `started`, `state`, and the roles; `consumers` while there are some, `error` after a failure."""
        status: dict[str, Any] = {"mode": MODE, "started": self._is_up, "state": self._state}
        if self._worker is not None:
            status["roles"] = list(self._worker.roles)
            status["group"] = self._worker.settings.group
        if self._is_up:
            status["consumers"] = {
                part.name: part.details for part in self._parts() if part.name == "consumer"
            }
        if self._error is not None:
            status["error"] = str(self._error)
        return status

    async def health(self) -> dict[str, Any]:
        """`status` (OK, DEGRADED or ERROR), `mode`, `started`, `components`; a `message` where it does not run."""
        health: dict[str, Any] = {"status": "ERROR", "mode": MODE, "started": self._is_up, "components": []}
        if not self._is_up:
            failed = self._state == "failed"
            health["message"] = f"Runtime failed: {self._error}" if failed else "Runtime not started"
            if failed:
                health["components"] = [{"name": "runtime", "status": "ERROR", "error": str(self._error)}]
            return health
        parts = self._parts()
        health["components"] = [_component(part) for part in parts]
        states = {part.state for part in parts}
        if self._state == "stopping":
            health["message"] = "Runtime is stopping"
            states.add(HealthState.degraded)
        worst = (state for state in (HealthState.unhealthy, HealthState.degraded) if state in states)
        health["status"] = _STATUS[next(worst, HealthState.healthy)]
        return health

    @property
    def _is_up(self) -> bool:
        return self._state in ("running", "stopping")

    def _parts(self) -> list[HealthComponent]:
        return self._worker.health().components if self._worker is not None else []


def _component(part: HealthComponent) -> dict[str, Any]:
    component: dict[str, Any] = {
        "name": part.name,
        "status": _STATUS[part.state],
        "details": dict(part.details),
    }
    if (error := part.details.get("error") or part.details.get("not_ready")) is not None:
        component["error"] = error
    return component
