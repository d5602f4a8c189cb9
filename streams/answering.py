"""An endpoint for a process that is no worker, such as a bridge: one component, and what it counts.

async with answering(settings.http, bridge.health, figures):
    await bridge.run()
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from schemas.health import HealthComponent, HealthState, HealthStatus
from schemas.version import __version__
from streams.http import Endpoint
from streams.metrics import Figure
from streams.scrape import Scrape


@asynccontextmanager
async def answering(
    address: str,
    health: Callable[[], HealthComponent],
    figures: Callable[[], Iterable[Figure]],
    service: str = "tidegate",
) -> AsyncIterator[str]:
    """Answer at HOST:PORT, and give where that really is; nowhere where it is empty. Raises `ConfigError`."""

    def status() -> HealthStatus:
        part = health()
        return HealthStatus(service, part.state, [part], __version__, time.time())

    endpoint = Endpoint(status, lambda: status().state is not HealthState.unhealthy, Scrape(figures))
    if address:
        await endpoint.open(address)
    try:
        yield endpoint.address
    finally:
        await endpoint.close()
