"""What a worker answers, without the worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from schemas.errors import ConfigError
from schemas.health import HealthComponent, HealthState, HealthStatus, worst
from streams.http import Endpoint


def status(*components: HealthComponent) -> HealthStatus:
    return HealthStatus("tidegate", worst(list(components)), list(components), "1.0", 5.0)


@asynccontextmanager
async def serving(health: HealthStatus, *, alive: bool = True) -> AsyncIterator[str]:
    async def scrape(accept: str) -> tuple[bytes, str]:
        return b"ticks 1\n", "text/plain; version=1.0.0; charset=utf-8"

    endpoint = Endpoint(lambda: health, lambda: alive, scrape)
    await endpoint.open("127.0.0.1:0")
    try:
        yield f"http://{endpoint.address}"
    finally:
        await endpoint.close()


async def ask(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_a_healthy_worker_is_alive_and_ready() -> None:
    async with serving(status(HealthComponent("broker", HealthState.healthy))) as url:
        assert await ask(f"{url}/metrics") == (200, "ticks 1\n")
        for probe in ("healthz", "readyz"):
            code, text = await ask(f"{url}/{probe}")
            assert code == 200
            assert json.loads(text) == {
                "service": "tidegate",
                "state": "healthy",
                "components": [{"name": "broker", "state": "healthy", "details": {}}],
                "version": "1.0",
                "ts": 5.0,
            }


@pytest.mark.parametrize("state", [HealthState.degraded, HealthState.unhealthy])
async def test_who_is_ill_goes_on_unless_a_part_says_that_it_is_not_ready(state: HealthState) -> None:
    async with serving(status(HealthComponent("store", state, {"error": "away"}))) as url:
        assert (await ask(f"{url}/healthz"))[0] == 200
        assert (await ask(f"{url}/readyz"))[0] == 200
    async with serving(status(HealthComponent("state", state, {"not_ready": "recovering"}))) as url:
        assert (await ask(f"{url}/healthz"))[0] == 200
        code, text = await ask(f"{url}/readyz")
        assert (code, json.loads(text)["state"]) == (503, state.value)


async def test_a_worker_that_has_crashed_is_not_alive() -> None:
    async with serving(status(), alive=False) as url:
        assert (await ask(f"{url}/healthz"))[0] == 503


async def test_a_port_in_use_is_named_with_what_to_do() -> None:
    async with serving(status()) as url:
        endpoint = Endpoint(status, lambda: True, lambda accept: pytest.fail("nobody scrapes"))
        with pytest.raises(ConfigError, match=r"the port is in use") as caught:
            await endpoint.open(url.removeprefix("http://"))
        assert "port 0" in caught.value.hint


async def test_a_host_that_is_not_ours_is_named() -> None:
    endpoint = Endpoint(status, lambda: True, lambda accept: pytest.fail("nobody scrapes"))
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0: cannot listen there"):
        await endpoint.open("192.0.2.1:0")


async def test_nothing_else_is_served() -> None:
    async with serving(status()) as url:
        assert (await ask(f"{url}/"))[0] == 404
