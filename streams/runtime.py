"""Running Faust apps in a process of our own: signals, a clean end, one clear error."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError
from streams.app import App
from streams.limits import raise_open_files

log = structlog.get_logger(__name__)

#: Objects made and not freed before the garbage collector looks for cycles. A batch alone is tens of
#: thousands: Python's 700 costs a worker a sixth of its time, for cycles that it hardly makes.
GC_THRESHOLD = 500_000


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    """Start the apps; stop them in the same order, which drains them."""
    try:
        await asyncio.gather(*(app.start() for app in apps))
        yield
    finally:
        for app in apps:
            if app.crashed:  # Faust has stopped its parts, and complains if they are stopped again
                await app.leave()
                await app.clean_up()
            else:
                await app.stop()


async def crashed(*apps: App) -> BaseException:
    """Wait until one of the apps has crashed; gives its reason."""
    while True:
        if (reason := crash_of(*apps)) is not None:
            return reason
        await asyncio.sleep(0.1)


def crash_of(*apps: App) -> BaseException | None:
    """Why one of the apps has crashed, if one has."""
    for app in apps:
        if app.crashed:
            return _explained(app.crash_reason or RuntimeError(f"{app.conf.id} crashed"))
    return None


def _explained(exc: BaseException) -> BaseException:
    if isinstance(exc, KafkaError):
        return BrokerError(
            f"the broker or its client gave up: {exc}", hint="see the log above for what preceded it"
        )
    return exc


async def _show_life(file: Path) -> None:
    """Touch the file while the event loop runs: what looks after the process reads its age."""
    while True:
        file.touch()  # noqa: ASYNC240  local, and a stuck disk should look like a stuck worker
        await asyncio.sleep(1)


async def serve(app: App, health_file: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT; raises the reason if the app crashes."""
    gc.set_threshold(GC_THRESHOLD)
    raise_open_files()
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def leave() -> None:
        nonlocal starting
        stop.set()
        if starting is not None:  # which may last: until partitions are assigned and their state is read
            starting.cancel()
            starting = None

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, leave)
    try:
        async with running(app):
            starting = None
            await _until(stop, app, health_file)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    log.info("worker.left", app=app.conf.id)


async def _until(stop: asyncio.Event, app: App, health_file: Path | None) -> None:
    """Wait to be told to leave; raises the reason if the app crashes."""
    log.info("worker.started", app=app.conf.id)
    life = asyncio.ensure_future(_show_life(health_file)) if health_file is not None else None
    stopping = asyncio.ensure_future(stop.wait())
    crash = asyncio.ensure_future(crashed(app))
    await asyncio.wait([stopping, crash], return_when=asyncio.FIRST_COMPLETED)
    if crash.done():
        raise crash.result()
    crash.cancel()
    if life is not None:
        life.cancel()
    log.info("worker.leaving", app=app.conf.id)
