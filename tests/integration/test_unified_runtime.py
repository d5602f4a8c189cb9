"""Workers inside a program: started, asked, broken and stopped on Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import UnifiedRuntime
from schemas.errors import BrokerError, QueueFull
from streams.settings import Settings, load_settings
from support.kafka import TestTopics
from support.ops_site import OpsSite, ops_site

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.covers("runtime status"),
    pytest.mark.covers("runtime health"),
]


@pytest.fixture
def site(topics: TestTopics, postgres: str, tmp_path: Path) -> Iterator[OpsSite]:
    """On PostgreSQL, that can be stalled and cut off."""
    with ops_site(topics, postgres, tmp_path) as site:
        yield site


def settings(site: OpsSite, **more: Any) -> Settings:
    return load_settings(site.config("runtime", http="", drain_timeout="2s", **more))


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.05)


def test_what_was_never_started_says_so(tmp_path: Path) -> None:
    async def ask() -> None:
        runtime = UnifiedRuntime()
        await runtime.stop()
        assert await runtime.status() == {"mode": "kafka", "started": False, "state": "stopped"}
        assert await runtime.health() == {
            "status": "ERROR",
            "mode": "kafka",
            "started": False,
            "components": [],
            "message": "Runtime not started",
        }

    asyncio.run(ask())


@pytest.mark.postgres
async def test_it_runs_degrades_and_stops_and_answers_all_the_while(site: OpsSite) -> None:
    runtime = UnifiedRuntime(settings(site))
    starting = asyncio.create_task(runtime.start())
    await asyncio.sleep(0)
    assert (await runtime.status())["state"] == "starting"
    assert (await runtime.health())["message"] == "Runtime not started"
    await asyncio.wait_for(starting, 60)
    await runtime.start()  # it is
    status = await runtime.status()
    assert (status["mode"], status["started"], status["state"]) == ("kafka", True, "running")
    assert status["roles"] == ["bars", "store"]

    async def health() -> dict[str, Any]:
        found = await runtime.health()
        assert found.keys() >= {"status", "mode", "started", "components"}
        return found

    async def is_ok() -> bool:
        return (await health())["status"] == "OK"

    await until(is_ok, 20, "all is well")
    components = {part["name"]: part for part in (await health())["components"]}
    assert list(components) == ["broker", "consumer", "state", "store"]
    assert components["consumer"]["details"]["bars.assigned"] == "4"
    assert all(part["status"] == "OK" for part in components.values())

    for second in (0, 3, 6):
        await asyncio.to_thread(site.tick, second)
    assert site.database
    site.database.cut()
    for second in (9, 12):
        await asyncio.to_thread(site.tick, second)

    async def is_degraded() -> bool:
        found = await health()
        [store] = (part for part in found["components"] if part["name"] == "store")
        return found["status"] == "DEGRADED" and store["status"] == "DEGRADED" and bool(store.get("error"))

    await until(is_degraded, 30, "it says that the database is away")
    stopping = asyncio.create_task(runtime.stop())

    async def is_stopping() -> bool:
        return (await runtime.status())["state"] == "stopping"

    await until(is_stopping, 5, "it drains")
    found = await health()
    assert (found["status"], found["started"], found["message"]) == ("DEGRADED", True, "Runtime is stopping")
    await asyncio.wait_for(stopping, 30)
    assert (await runtime.status())["state"] == "stopped"
    assert (await health())["message"] == "Runtime not started"


@pytest.mark.postgres
async def test_what_fails_says_with_what_and_can_be_started_again(site: OpsSite) -> None:
    # Without the brake, which would hold the ticks back before the queue is full.
    no_brake = {"scale_soft": 1.0, "scale_hard": 1.0}
    runtime = UnifiedRuntime(settings(site, overflow="error", queue_capacity=2, write_batch=1, **no_brake))
    running = asyncio.create_task(runtime.run())

    async def is_running() -> bool:
        return (await runtime.status())["state"] == "running"

    await until(is_running, 60, "it runs")
    assert site.database
    site.database.stall()
    async with asyncio.timeout(60):
        # What comes in one batch is taken whole: it is the next one that finds no room.
        for second in range(0, 3000, 3):
            await asyncio.to_thread(site.tick, second)
            if (await asyncio.wait([running], timeout=0.1))[0]:
                break
    with pytest.raises(QueueFull, match="the store's queue is full"):
        await running
    status, health = await runtime.status(), await runtime.health()
    assert (status["state"], status["started"]) == ("failed", False)
    assert "the store's queue is full" in status["error"]
    assert health["status"] == "ERROR"
    assert "Runtime failed: the store's queue is full" in health["message"]
    assert health["components"][0]["status"] == "ERROR"
    site.database.resume()

    async with asyncio.timeout(60), runtime:
        assert (await runtime.status())["state"] == "running"
        assert "error" not in await runtime.status()
    assert (await runtime.status())["state"] == "stopped"


async def test_what_cannot_start_says_why(kafka: str, tmp_path: Path) -> None:
    runtime = UnifiedRuntime(
        load_settings(None, broker=kafka, topic_prefix="none.", store=f"duckdb:{tmp_path / 'bars.duckdb'}")
    )
    with pytest.raises(BrokerError, match="lacks topics"):
        await runtime.start()
    assert (await runtime.status())["state"] == "failed"
    assert "lacks topics" in (await runtime.health())["message"]
    await runtime.stop()


async def test_a_start_that_is_given_up_leaves_nothing_behind(site: OpsSite) -> None:
    runtime = UnifiedRuntime(settings(site))
    starting = asyncio.create_task(runtime.start())
    await asyncio.sleep(0)
    await asyncio.wait_for(runtime.stop(), 30)
    await starting
    assert (await runtime.status())["state"] == "stopped"
