"""A worker as it is seen from outside: its roles, how each part of it is, and what it has counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator

import structlog

from schemas.health import HealthComponent, HealthState, HealthStatus, worst
from schemas.version import __version__
from streams.app import App
from streams.broker_watch import BrokerWatch
from streams.figures import of_bars, of_health, of_operator, of_store
from streams.http import Endpoint
from streams.metrics import Figure
from streams.operator import Operator
from streams.parts import consumer_health, state_health
from streams.reload import Reload
from streams.roles import BarsRole, StoreRole
from streams.settings import Settings
from streams.topics import Topics

SERVICE = "tidegate"

log = structlog.get_logger(__name__)


class Worker:
    """One process's roles, with health, metrics and, where `http` is set, an endpoint for both.

    Nothing here awaits a broker or a database: `health`, `figures` and the endpoint answer while those are
    away. `components` and `sources` take what else a worker has, such as a registry.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bars: BarsRole | None,
        store: StoreRole | None,
        read_again: Callable[[], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self.bars = bars
        self.store = store
        self.roles = {name: role for name, role in (("bars", bars), ("store", store)) if role is not None}
        self.operator = Operator(settings, self.roles, Reload(settings, self.roles, read_again))
        self.broker = BrokerWatch(settings, Topics(settings.topic_prefix).bars)
        self.components: list[Callable[[], HealthComponent]] = [
            self.broker.health,
            lambda: consumer_health(self.roles),
        ]
        self.sources: list[Callable[[], Iterable[Figure]]] = []
        if bars is not None:
            self.components.append(lambda: state_health(bars))
            self.sources.append(lambda: of_bars(bars, settings))
        if store is not None:
            self.components.append(store.writer.health)
            self.sources.append(lambda: of_store(store, settings))
        for role in self.roles.values():
            self.components += role.components
        self.endpoint: Endpoint | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def app(self) -> App:
        """The app that starts and stops the others; the first one named in `roles`."""
        return self.roles[self.settings.roles[0]].app

    async def open(self) -> None:
        """Begin to answer. Raises `ConfigError` where the port of `http` cannot be had."""
        if self.settings.http:
            from streams.scrape import Scrape  # loads Prometheus' client

            endpoint = Endpoint(self.health, self.alive, Scrape(self.figures))
            await endpoint.open(self.settings.http)
            self.endpoint = endpoint

    async def begin(self) -> None:
        """Watch the broker and obey operators, once it is known that the broker is there.

        Returns when it is known what they have paused: before the groups are joined, so that whoever is a member
        answers what is asked of the members.
        """
        self._tasks = [asyncio.create_task(self._beside(run)) for run in (self.broker.run, self.operator.run)]
        await self.operator.known()

    async def _beside(self, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except Exception as exc:
            await self.app.crash(exc)

    async def close(self) -> None:
        """Answer no more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.endpoint is not None:
            await self.endpoint.close()
            self.endpoint = None

    def alive(self) -> bool:
        """Whether it is worth keeping: False where a role has crashed, and the process is about to end."""
        return not any(role.app.crashed for role in self.roles.values())

    def health(self) -> HealthStatus:
        """How it is now. Never raises: a part that cannot say how it is, is unhealthy."""
        components = [_asked(part) for part in self.components]
        return HealthStatus(SERVICE, worst(components), components, __version__, time.time())

    def figures(self) -> Iterator[Figure]:
        """Everything that is counted, now."""
        for source in self.sources:
            yield from source()
        yield from of_operator(self.operator, self.roles)
        yield from of_health(self.health(), self.settings)


def _asked(part: Callable[[], HealthComponent]) -> HealthComponent:
    try:
        return part()
    except Exception as exc:  # whoever probes wants an answer, and this is one
        log.exception("health.failed", part=getattr(part, "__qualname__", repr(part)))
        return HealthComponent("unknown", HealthState.unhealthy, {"error": f"{type(exc).__name__}: {exc}"})
