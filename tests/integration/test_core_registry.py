"""The ecosystem's schema registry: its published client, against a server on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from market_data_core import telemetry

from schemas.contracts import SCHEMAS
from schemas.errors import BadRecord, ConfigError, RegistryError, SchemaMismatch
from schemas.health import HealthState
from streams.registry.core import SchemaRegistry
from streams.registry.messages import FEEDBACK, OWN, RATE, REQUIRED
from support.cli import tidegate
from support.containers import free_port
from support.core_registry import CoreRegistry
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, Worker

GOOD = {
    "coordinator_id": "store-1",
    "queue_size": 1,
    "capacity": 2,
    "level": "ok",
    "source": "store",
    "ts": 1.0,
}
STRANGE = {"type": "object", "required": ["colour"]}
"""What nobody's messages fit."""


@pytest.fixture
def server() -> Iterator[CoreRegistry]:
    """A registry that has the ecosystem's two schemas on track v2."""
    with CoreRegistry() as server:
        server.put(FEEDBACK, telemetry.FeedbackEvent.model_json_schema())
        server.put(RATE, telemetry.RateAdjustment.model_json_schema())
        yield server


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def opened(server: CoreRegistry, **options: Any) -> SchemaRegistry:
    registry = SchemaRegistry(server.url, **{"timeout_s": 2.0, **options})
    await registry.start()
    await registry.close()
    return registry


async def seen(condition: Callable[[], bool]) -> None:
    """What the registry does beside us."""
    await asyncio.to_thread(until, condition, 20, "the background has done it")


@pytest.mark.covers("registry: fetch")
async def test_both_schemas_are_fetched_from_the_preferred_track(server: CoreRegistry) -> None:
    server.put(FEEDBACK, STRANGE, "v1")
    registry = await opened(server)
    schemas = registry.schemas()
    assert [schemas[name] and schemas[name].track for name in REQUIRED] == ["v2", "v2"]
    assert registry.check(FEEDBACK, GOOD) == (True, [])
    assert registry.health().state is HealthState.healthy
    assert registry.absent == set(OWN)


@pytest.mark.covers("registry: fetch")
async def test_what_track_v2_lacks_comes_from_v1_and_what_has_the_other_name_by_that(
    server: CoreRegistry,
) -> None:
    del server.schemas["v2", FEEDBACK]
    del server.schemas["v2", RATE]
    server.put(FEEDBACK, telemetry.FeedbackEvent.model_json_schema(), "v1")
    server.put(f"{RATE}.schema", telemetry.RateAdjustment.model_json_schema(), "v2")
    schemas = (await opened(server)).schemas()
    assert [schemas[name] and schemas[name].track for name in REQUIRED] == ["v1", "v2"]


@pytest.mark.covers("registry: configuration")
@pytest.mark.parametrize("bad", [{**GOOD, "queue_size": -1}, {**GOOD, "level": "loud"}, {}, None, [1]])
async def test_the_modes_differ_in_what_they_do_with_what_does_not_fit(
    bad: object, server: CoreRegistry
) -> None:
    off, warn, strict = [await opened(server, mode=mode) for mode in ("off", "warn", "strict")]
    assert off.check(FEEDBACK, bad) == (True, [])
    assert not off.schemas()[FEEDBACK]  # it asked nobody
    fits, errors = warn.check(FEEDBACK, bad)
    assert not fits
    assert errors
    assert warn.mismatches == 1
    with pytest.raises(SchemaMismatch, match=FEEDBACK) as caught:
        strict.check(FEEDBACK, bad)
    assert (caught.value.name, caught.value.errors, caught.value.track) == (FEEDBACK, errors, "v2")
    with pytest.raises(BadRecord, match="v2"):
        strict.accept(FEEDBACK, json.dumps(bad).encode())


@pytest.mark.covers("registry: cache")
@pytest.mark.covers("registry: expiry")
async def test_what_is_fresh_is_a_hit_and_what_has_expired_is_fetched_anew(server: CoreRegistry) -> None:
    clock = Clock()
    registry = SchemaRegistry(server.url, ttl_s=300, clock=clock)
    await registry.start()
    asked = len(server.asked)
    for _ in range(3):
        registry.check(FEEDBACK, GOOD)
    assert (registry.cache.hits, registry.cache.misses) == ({FEEDBACK: 3}, {})
    assert len(server.asked) == asked
    clock.now += 301
    registry.check(FEEDBACK, GOOD)
    assert (registry.cache.hits, registry.cache.misses) == ({FEEDBACK: 3}, {FEEDBACK: 1})
    server.put(FEEDBACK, STRANGE)
    await registry.refresh()
    assert not registry.check(FEEDBACK, GOOD).fits
    await registry.close()


@pytest.mark.covers("registry: expiry")
async def test_schemas_are_refreshed_in_the_background(server: CoreRegistry) -> None:
    registry = SchemaRegistry(server.url, ttl_s=0.1)
    await registry.start()
    running = asyncio.create_task(registry.run())
    server.put(FEEDBACK, STRANGE)
    await seen(lambda: not registry.check(FEEDBACK, GOOD).fits)
    server.stop()
    await seen(lambda: "error" in registry.health().details)
    server.start()
    await seen(lambda: "error" not in registry.health().details)
    running.cancel()
    await registry.close()


@pytest.mark.covers("registry: degradation")
async def test_stale_schemas_serve_while_the_registry_is_away_also_after_a_restart(
    server: CoreRegistry, tmp_path: Path
) -> None:
    await opened(server, folder=tmp_path / "schemas")
    server.stop()
    for fail in ("open", "closed"):
        registry = await opened(server, folder=tmp_path / "schemas", mode="strict", fail=fail)
        assert registry.check(FEEDBACK, GOOD).fits
        with pytest.raises(SchemaMismatch):
            registry.check(FEEDBACK, {})
        health = registry.health()
        assert health.state is HealthState.degraded
        assert {"url", "error", "oldest_s"} <= set(health.details)


@pytest.mark.covers("registry: degradation")
async def test_without_any_schema_open_goes_on_and_closed_does_not(server: CoreRegistry) -> None:
    server.stop()
    registry = SchemaRegistry(server.url, mode="strict", fail="open")
    await registry.start()
    assert registry.check(FEEDBACK, {}).fits
    assert registry.unchecked == 1
    assert registry.health().state is HealthState.degraded
    with pytest.raises(RegistryError, match="no schema of"):
        await opened(server, mode="strict", fail="closed")
    server.start()
    await registry.refresh()
    with pytest.raises(SchemaMismatch):
        registry.check(FEEDBACK, {})
    assert registry.health().state is HealthState.healthy
    await registry.close()


@pytest.mark.covers("registry: degradation")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda server: setattr(server, "garbage", b"\xff not JSON"),
        lambda server: setattr(server, "garbage", b'{"name": 1}'),
        lambda server: setattr(server, "garbage", b"[]"),
        lambda server: setattr(server, "delay_s", 3.0),
    ],
    ids=["no JSON", "another shape", "a list", "too slow"],
)
async def test_an_answer_that_is_none_is_a_registry_that_is_away(
    spoil: Callable[[CoreRegistry], None], server: CoreRegistry
) -> None:
    registry = await opened(server)
    spoil(server)
    registry = await opened(server, timeout_s=0.3)
    assert registry.health().state is HealthState.degraded
    assert registry.health().details["error"]
    assert "\n" not in registry.health().details["error"]


@pytest.mark.covers("registry: cache")
async def test_a_cache_on_disk_that_is_spoilt_is_fetched_anew(server: CoreRegistry, tmp_path: Path) -> None:
    await opened(server, folder=tmp_path)
    spoilt = tmp_path / f"{FEEDBACK}.json"
    kept = [await asyncio.to_thread((tmp_path / f"{name}.json").is_file) for name in (*REQUIRED, *OWN)]
    assert kept == [True, True, *(False for _ in OWN)]
    spoilt.write_bytes(b'{"name": ')
    registry = await opened(server, folder=tmp_path)
    assert registry.check(FEEDBACK, GOOD).fits
    assert json.loads(spoilt.read_bytes())["name"] == FEEDBACK


@pytest.mark.covers("registry: configuration")
async def test_what_is_no_json_schema_fits_nothing_and_is_told(server: CoreRegistry) -> None:
    server.put(FEEDBACK, {"type": "colour"})
    with pytest.raises(SchemaMismatch, match="no JSON Schema"):
        await opened(server, mode="strict")


@pytest.mark.covers("registry: configuration")
async def test_a_schema_that_becomes_none_stops_nobody(server: CoreRegistry) -> None:
    registry = SchemaRegistry(server.url)
    await registry.start()
    for content in ({"type": "colour"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "#"}, {"$schema": 5}):
        server.put(FEEDBACK, content)
        await registry.refresh()
        registry.accept(FEEDBACK, json.dumps(GOOD).encode())
        fits, errors = registry.check(FEEDBACK, GOOD)
        assert not fits
        assert "JSON Schema" in errors[0]
        assert registry.health().state is HealthState.degraded
    await registry.close()


@pytest.mark.covers("registry: fetch")
async def test_what_a_schema_points_to_is_not_fetched(server: CoreRegistry) -> None:
    server.put(FEEDBACK, {"$ref": f"{server.url}/schemas/v2/elsewhere"})
    registry = await opened(server)
    assert not registry.check(FEEDBACK, GOOD).fits
    assert not any("elsewhere" in path for path in server.asked)


@pytest.mark.covers("registry: degradation")
async def test_a_schema_that_cannot_be_had_keeps_no_other_from_being_fetched(server: CoreRegistry) -> None:
    server.spoilt.add(FEEDBACK)
    registry = await opened(server)
    known = registry.schemas()
    assert (known[FEEDBACK], known[RATE] and known[RATE].track) == (None, "v2")
    health = registry.health()
    assert health.state is HealthState.degraded
    assert "500" in health.details["error"]


@pytest.mark.covers("registry: configuration")
async def test_bars_and_dead_letters_are_held_against_their_schemas_when_a_worker_starts(
    server: CoreRegistry,
) -> None:
    for name, contract in OWN.items():
        server.put(name, SCHEMAS[contract].model_json_schema())
    registry = await opened(server, mode="strict")
    assert registry.health().details.get("does_not_fit") is None
    server.put("tidegate.Bar", {"properties": {"vwap": {"type": "string"}}})
    with pytest.raises(SchemaMismatch, match=r"tidegate\.Bar .*vwap: None"):
        await opened(server, mode="strict")


@pytest.mark.covers("registry: configuration")
async def test_a_url_that_is_none_is_a_clear_error() -> None:
    for url in ("registry", "ftp://x", "http://[::"):
        registry = SchemaRegistry(url, fail="closed", timeout_s=1)
        with pytest.raises((ConfigError, RegistryError)) as caught:
            await registry.start()
        assert url in str(caught.value)
        await registry.close()


class TestCommand:
    """``tidegate registry``."""

    def test_list_show_and_check(self, server: CoreRegistry, tmp_path: Path) -> None:
        def run(*arguments: str) -> Any:
            return tidegate("registry", *arguments, "--url", server.url, cwd=tmp_path)

        rows = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
        assert [row["schema"] for row in rows] == [*REQUIRED, *OWN]
        assert rows[0]["track"] == "v2"
        shown = json.loads(run("show", FEEDBACK).stdout)
        assert shown == telemetry.FeedbackEvent.model_json_schema()
        assert run("check").returncode == 0
        server.put(FEEDBACK, STRANGE)
        done = run("check")
        assert done.returncode == 1
        assert f"{FEEDBACK}: 'colour' is a required property" in done.stdout.decode()
        server.stop()
        done = run("check")
        assert done.returncode == 1
        assert server.url in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()

    def test_mistakes_are_one_line_with_a_hint(self, server: CoreRegistry, tmp_path: Path) -> None:
        for arguments in (
            ("list",),
            ("show", "nonsense", "--url", server.url),
            ("show", "tidegate.Bar", "--url", server.url),
        ):
            done = tidegate("registry", *arguments, cwd=tmp_path)
            assert done.returncode == 1
            lines = done.stderr.decode().splitlines()
            assert lines[0].startswith("tidegate: ")
            assert lines[1].startswith("  hint: ")


@pytest.mark.kafka
@pytest.mark.end_to_end
@pytest.mark.covers("registry: degradation")
def test_a_strict_worker_refuses_to_start_and_a_warned_one_works(
    server: CoreRegistry, kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    server.put(FEEDBACK, {**telemetry.FeedbackEvent.model_json_schema(), "additionalProperties": False})
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name, partitions=1)
    config = tmp_path / "tidegate.toml"
    config.write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{topics.prefix}"\ngroup = "{topics.prefix}g"\n'
        f'registry_url = "{server.url}"\n[[ticks]]\ntopic = "{topics.prefix}ticks.v1"\n'
    )
    with Worker(tmp_path, "strict", config, TIDEGATE_REGISTRY_MODE="strict") as worker:
        assert worker.process.wait(30) == 1
        last = worker.log.read_text().splitlines()
        assert any(line.startswith(f"tidegate: schema {FEEDBACK} (track v2) refuses") for line in last)
    with Worker(tmp_path, "warned", config) as worker:
        until(lambda: worker.events("schema.mismatch"), 30, "it says what does not fit")
        until(lambda: worker.events("bars.assigned"), 30, "it works")
        server.stop()
        assert worker.stop() == 0


@pytest.mark.kafka
@pytest.mark.covers("registry: degradation")
def test_a_worker_whose_registry_must_be_there_says_so(
    kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name, partitions=1)
    config = tmp_path / "tidegate.toml"
    config.write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{topics.prefix}"\nregistry_fail = "closed"\n'
        f'registry_url = "http://127.0.0.1:{free_port()}"\n[[ticks]]\ntopic = "{topics.prefix}ticks.v1"\n'
    )
    done = tidegate("worker", cwd=tmp_path, timeout_s=30)
    assert done.returncode == 1
    assert "tidegate: schema registry http://127.0.0.1:" in done.stderr.decode()
