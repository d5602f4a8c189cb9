"""What a worker answers over HTTP: `/metrics`, `/healthz` (liveness) and `/readyz` (readiness).

A probe gets 200 or 503, and in both cases the health status as JSON in the shape of market-data-core's
`HealthStatus`. There is no login: bind it where only those reach it who may read it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from schemas.errors import ConfigError
from schemas.health import HealthStatus, not_ready
from streams.address import parse_address

if TYPE_CHECKING:
    from aiohttp import web

log = structlog.get_logger(__name__)

#: What a client that reads slowly may hold up the end of a worker.
_CLOSE_S = 1.0


class Endpoint:
    """Serves what it is given, and knows nothing of workers."""

    def __init__(
        self,
        health: Callable[[], HealthStatus],
        alive: Callable[[], bool],
        scrape: Callable[[str], Awaitable[tuple[bytes, str]]],
    ) -> None:
        self.address = ""
        """HOST:PORT, with the port that it really has."""
        self._health = health
        self._alive = alive
        self._scrape = scrape
        self._runner: web.AppRunner | None = None

    async def open(self, address: str) -> None:
        """Listen at HOST:PORT; port 0 is any free one. Raises `ConfigError` where it cannot be had."""
        from aiohttp import web  # only for those who want an endpoint

        host, port = parse_address(address)
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as exc:
            await self.close()
            raise _refused(address, exc) from None
        host, port = self._runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        log.info("http.listening", address=self.address)

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        from aiohttp import web

        text, content_type = await self._scrape(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        return _answer(self._health(), self._alive())

    async def _readyz(self, request: web.Request) -> web.Response:
        status = self._health()
        return _answer(status, not not_ready(status))


def _answer(status: HealthStatus, passed: bool) -> web.Response:
    from aiohttp import web

    return web.Response(
        body=msgspec.json.encode(status),
        status=200 if passed else 503,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _refused(address: str, exc: OSError) -> ConfigError:
    if exc.errno == errno.EADDRINUSE:
        return ConfigError(
            f"http {address}: the port is in use",
            hint="has another worker of this machine the same http? with port 0 each takes a free one",
        )
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    return ConfigError(f"http {address}: cannot listen there: {reason}", hint="http is HOST:PORT")
