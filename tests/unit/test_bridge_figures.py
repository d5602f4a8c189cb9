"""What is counted of bridges, and how a process that is no worker tells it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from schemas.health import HealthComponent, HealthState
from streams.answering import answering
from streams.bridge_figures import of_bridge
from support.probing import samples

pytestmark = pytest.mark.covers("metrics")


async def test_a_bridge_answers_for_itself() -> None:
    counts: Any = SimpleNamespace(heard=10, passed_over=2, refused=1)
    health = HealthComponent("bridge", HealthState.degraded, {"bus": "away"})
    async with (
        answering(
            "127.0.0.1:0", lambda: health, lambda: of_bridge(counts, lambda: 0.25, "s", "v1")
        ) as address,
        aiohttp.ClientSession(f"http://{address}") as session,
    ):
        async with session.get("/readyz") as response:
            body = json.loads(await response.text())
            assert (response.status, body["state"], body["components"][0]["name"]) == (
                200,
                "degraded",
                "bridge",
            )
        async with session.get("/metrics") as response:
            found = samples(await response.text())
    assert found["pulse_consume_total", "s", "v1", "success"] == 7
    assert found["pulse_consume_total", "s", "v1", "error"] == 1
    assert found["pulse_consume_total", "s", "v1", "duplicate"] == 2
    assert found["pulse_lag_ms", "s"] == 250


async def test_a_bridge_without_an_address_answers_nowhere() -> None:
    async with answering("", lambda: pytest.fail("nobody asks"), lambda: ()) as address:
        assert address == ""
