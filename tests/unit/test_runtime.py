"""A worker's process, without what works in it."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any, cast

from streams.app import App
from streams.runtime import serve


async def test_a_worker_that_is_still_starting_stops_when_it_is_told_to() -> None:
    # A start lasts until partitions are assigned and their state is read: with no broker, for ever.
    starting, steps = asyncio.Event(), []

    async def start() -> None:
        starting.set()
        await asyncio.Event().wait()

    async def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # whoever is impatient
        await asyncio.sleep(0)
        steps.append("stopped")

    app: Any = SimpleNamespace(start=start, stop=stop, crashed=False, conf=SimpleNamespace(id="t"))
    serving = asyncio.create_task(serve(cast("App", app)))
    await starting.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 5)
    assert steps == ["stopped"]
