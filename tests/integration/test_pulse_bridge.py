"""The bridge between core's event bus on Redis and the feedback topic, on real servers and with the real peers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from market_data_core.events import EventEnvelope, InMemoryBus, create_event_bus
from market_data_core.telemetry import BackpressureLevel, FeedbackEvent, RateAdjustment

import streams.ecosystem.links
import streams.ecosystem.redis_bus
from schemas.health import HealthState
from streams.ecosystem.buses import CoreBus
from streams.ecosystem.envelopes import encode_envelope
from streams.ecosystem.redis_bus import RedisBus
from support.coordinator import Coordinator
from support.kafka import TestTopics
from support.pulse import TTL_S, Ends
from support.wait import eventually
from support.workers import environment

pytestmark = [pytest.mark.kafka, pytest.mark.covers("pulse bridge")]


@pytest.fixture
async def ends(redis: str, topics: TestTopics) -> AsyncIterator[Ends]:
    ends = Ends(redis, topics)
    yield ends
    await ends.close()


@pytest.mark.covers("FeedbackEvent")
@pytest.mark.covers("BackpressureLevel")
@pytest.mark.covers("event bus")
async def test_what_a_store_says_on_the_bus_is_feedback_about_every_partition(ends: Ends) -> None:
    async with ends.bridge() as bridge:
        for size, level in ((12, "soft"), (25, "hard"), (3, "ok")):
            entry = await ends.say(level, size=size, reason=f"is {level}")
            await eventually(lambda level=level: ends.last() == {level}, 10, f"{level} on every partition")
            record = next(r for r in ends.records() if entry.encode() in dict(r.headers()).values())
            headers = {name: value.decode() for name, value in record.headers()}
            assert headers == {
                "reason": f"is {level}",
                "utilization": f"{size / 20:.6f}",
                "pulse-id": entry,
                "pulse-source": "store",
            }
            assert record.key() == b"bars-coord"
        for partition in (0, 1):
            heard = ends.heard(partition)
            assert {(f.coordinator_id, f.capacity, f.source, f.partition) for f in heard} == {
                ("bars-coord", 20, "pulse", partition)
            }
            assert sorted(f.ts for f in heard) == [f.ts for f in heard]
        await eventually(lambda: ends.pending() == 0, 30, "all is acknowledged")
        assert (bridge.counts.heard, bridge.counts.told, bridge.counts.refused) == (3, 3, 0)


async def test_only_the_partitions_that_are_named_hear_of_it(ends: Ends) -> None:
    async with ends.bridge(partitions=[1]):
        await ends.say("hard")
        await eventually(lambda: ends.last(partitions=[1]) == {"hard"}, 30, "hard on partition 1")
    assert ends.last(partitions=[0]) == {"nothing"}


async def test_hard_is_repeated_until_the_store_says_ok(ends: Ends) -> None:
    async with ends.bridge() as bridge:
        await ends.say("hard")
        await eventually(lambda: bridge.counts.repeated >= 5, 30, "it is repeated")
        gaps = [after.ts - before.ts for before, after in zip(ends.heard(), ends.heard()[1:], strict=False)]
        assert max(gaps) < TTL_S, "never so long that it would not count"
        assert bridge.health().details["holding"] == "bars-coord hard"
        await ends.say("ok")
        await eventually(lambda: ends.last() == {"ok"}, 30, "ok")
        assert bridge.health().details["holding"] == "nobody"
        count = len(ends.heard())
    assert len(ends.heard()) == count, "ok is not repeated"


async def test_hard_is_repeated_for_no_longer_than_it_is_said_to_hold(ends: Ends) -> None:
    async with ends.bridge(hold_s=1.0) as bridge:
        began = time.time()
        await ends.say("hard")
        await eventually(lambda: bridge.counts.repeated > 0, 30, "it is repeated")
        await eventually(lambda: bridge.health().details["holding"] == "nobody", 30, "it holds no more")
        assert 0.9 < time.time() - began < 4
        count = bridge.counts.repeated
        await ends.say("soft", "other")
        await eventually(lambda: ends.last("other") == {"soft"}, 30, "others are still heard")
        assert bridge.counts.repeated - count <= 5, "of the first one nothing is repeated"
        assert ends.last() == {"hard"}


@pytest.mark.covers("recovery")
async def test_a_bridge_that_begins_knows_what_stores_said_last(ends: Ends) -> None:
    await ends.say("soft", "a")
    await ends.say("hard", "a")
    await ends.say("hard", "b")
    await ends.say("ok", "b")
    async with ends.bridge() as bridge:
        await eventually(lambda: ends.last("a") == {"hard"}, 30, "a is hard")
        assert [f.level.value for f in ends.heard() if f.coordinator_id == "b"] == ["ok"]
        assert bridge.health().details["holding"] == "a hard"


@pytest.mark.covers("event bus")
@pytest.mark.parametrize("claim_after_s", [3600.0, 0.2], ids=["itself", "another"])
async def test_what_a_consumer_left_undone_is_done(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, claim_after_s: float
) -> None:
    monkeypatch.setattr(streams.ecosystem.redis_bus, "_CLAIM_AFTER_S", claim_after_s)
    ends.client.xgroup_create(ends.key, "pipeline", id="$", mkstream=True)
    await ends.say("soft")
    ends.client.xadd(ends.key, {"data": b"garbage"})
    await ends.say("hard")
    # A bridge that was killed in the midst and is started again; or a pipeline, whose `ack` does nothing.
    consumer = ends.pulse().consumer if claim_after_s > 1 else "somebody-else"
    assert ends.client.xreadgroup("pipeline", consumer, {ends.key: ">"})
    trimmed = ends.client.xadd(ends.key, {"data": b"trimmed"})
    ends.client.xreadgroup("pipeline", consumer, {ends.key: ">"})
    ends.client.xdel(ends.key, trimmed)
    assert ends.pending() == 4
    async with ends.bridge() as bridge:
        await eventually(lambda: ends.pending() == 0, 30, "nothing is left undone")
        await eventually(lambda: ends.last() == {"hard"}, 30, "the last word is on every partition")
        assert [f.level.value for f in ends.heard()].count("soft") == 0, "what is out of date is not told"
        assert bridge.counts.refused == 1
    assert ends.client.xlen(ends.dead_letters) == 1


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_versions_of_the_protocol_of_redis_are_understood(ends: Ends, protocol: int) -> None:
    ends.redis_url += f"?protocol={protocol}"
    await ends.say("soft")
    ends.client.xgroup_create(ends.key, "pipeline", id="0")
    ends.client.xreadgroup("pipeline", ends.pulse().consumer, {ends.key: ">"})
    async with ends.bridge():
        await eventually(lambda: ends.last() == {"soft"}, 30, "what was said before")
        await ends.say("hard")
        await eventually(lambda: ends.last() == {"hard"}, 30, "what is said now")
        await eventually(lambda: ends.undone() == 0, 30, "all is acknowledged")
        told = [level for level, _ in itertools.groupby(f.level.value for f in ends.heard())]
        assert told == ["soft", "hard"], "in their order"


async def test_two_bridges_of_one_group_say_the_same(ends: Ends) -> None:
    one = ends.pulse(group="g")
    async with ends.bridge(group="g") as first, ends.bridge(RedisBus(one), group="g") as second:
        for level in ("hard", "ok", "soft", "hard", "ok"):
            await ends.say(level)
            await eventually(lambda level=level: ends.last() == {level}, 10, level)
        both = (first, second)
        await eventually(
            lambda: {b.health().details["holding"] for b in both} == {"nobody"}, 30, "both know of it"
        )
        assert [bridge.counts.heard for bridge in both] == [5, 5], "whoever of the group was given them"
        await eventually(lambda: ends.pending("g") == 0, 30, "all is acknowledged")
    assert ends.last() == {"ok"}


GARBAGE: list[tuple[dict[str, bytes], str]] = [
    ({"data": b"\xff\xfe"}, "can't decode"),
    ({"data": b"{}"}, "it has no meta"),
    ({"other": b"x"}, "Expecting value"),
    (
        {"data": b'{"meta": {"schema_id": "telemetry.RateAdjustment"}, "payload": {}, "ts": 1}'},
        "RateAdjustment",
    ),
    (
        {
            "data": encode_envelope(
                FeedbackEvent(coordinator_id="", queue_size=1, capacity=1, level="ok", ts=1)
            )
        },
        "not a",
    ),
    (
        {
            "data": encode_envelope(
                FeedbackEvent(coordinator_id="c", queue_size=2**70, capacity=1, level="ok", ts=1)
            )
        },
        "not",
    ),
]


async def test_garbage_becomes_a_dead_letter_with_its_bytes_and_the_reason(ends: Ends) -> None:
    async with ends.bridge() as bridge:
        ids = [ends.client.xadd(ends.key, fields) for fields, _ in GARBAGE]
        await ends.say("hard")
        await eventually(lambda: ends.last() == {"hard"}, 30, "what comes after it is heard")
        await eventually(lambda: ends.pending() == 0, 30, "all is acknowledged")
        assert bridge.counts.refused == len(GARBAGE)
        assert bridge.health().state == HealthState.healthy
    letters = [fields for _, fields in ends.client.xrange(ends.dead_letters)]
    assert [letter[b"original_id"] for letter in letters] == ids
    for letter, (fields, reason) in zip(letters, GARBAGE, strict=True):
        assert letter[b"data"] == fields.get("data", b"")
        assert reason in letter[b"reason"].decode()


@pytest.mark.parametrize("before", [0, 1], ids=["nothing", "something"])
async def test_what_comes_while_a_bridge_begins_is_its_own_to_deal_with(ends: Ends, before: int) -> None:
    for _ in range(before):
        await ends.say("soft")
    bus = RedisBus(ends.pulse())
    try:
        await bus.open()
        assert len(await bus.recall()) == before
        garbage = ends.client.xadd(ends.key, {"data": b"garbage"})
        assert [(entry.id, entry.mine) for entry in await bus.read(0.1)] == [(garbage.decode(), True)]
    finally:
        await bus.close()


@pytest.mark.covers("event bus")
async def test_listeners_on_the_bus_hear_of_tidegates_stores_and_nothing_goes_round(ends: Ends) -> None:
    bus = create_event_bus("redis", ends.redis_url)
    heard: list[EventEnvelope[Any]] = []

    async def dashboard() -> None:
        stream = f"{ends.namespace}.telemetry.feedback"
        async for envelope in bus.subscribe(stream, group="dash", consumer="c"):
            heard.append(envelope)  # noqa: PERF401  it is looked at while it grows

    listening = asyncio.create_task(dashboard())
    try:
        await eventually(lambda: ends.client.exists(ends.key), 30, "the dashboard listens")
        async with ends.bridge() as bridge:
            with Coordinator(ends.bootstrap, ends.topic, "tidegate-store", heartbeat_s=0.2) as store:
                store.say({0: "ok", 1: "ok"})
                await eventually(lambda: [e.payload.level for e in heard] == ["ok"], 30, "ok")
                store.say({1: "hard"})
                await eventually(lambda: [e.payload.level for e in heard] == ["ok", "hard"], 30, "hard")
                await ends.say("hard")
                await eventually(lambda: bridge.counts.repeated >= 5, 30, "the other store is repeated")
                store.say({1: "ok"})
                await eventually(
                    lambda: [e.payload.level for e in heard] == ["ok", "hard", "ok"], 30, "ok again"
                )
                store.say({0: "soft"})
                await eventually(lambda: [e.payload.level for e in heard][3:] == ["soft"], 30, "soft")
            # The store has gone without a word.
            await eventually(
                lambda: [e.payload.level for e in heard][4:] == ["ok"], 30, "the silent one is let go"
            )
            assert {(e.payload.coordinator_id, e.payload.source) for e in heard} == {
                ("tidegate-store", "tidegate")
            }
            assert heard[-1].meta.headers["reason"] == "silent"
            assert bridge.counts.published == 5
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        await bus._redis.aclose()  # its own `close` is deprecated
    assert [level for _, level, _ in ends.on_bus("tidegate")] == ["ok", "hard", "ok", "soft", "ok"]
    assert {who for who, _, _ in ends.on_bus("store")} == {"bars-coord"}
    assert {f.source for f in ends.heard() if f.coordinator_id == "tidegate-store"} == {"store"}
    assert {f.source for f in ends.heard() if f.coordinator_id == "bars-coord"} == {"pulse"}


async def test_what_the_bus_was_told_before_a_crash_is_taken_back(ends: Ends) -> None:
    with Coordinator(ends.bootstrap, ends.topic, "tidegate-store", heartbeat_s=0.2) as store:
        store.say({0: "hard"})
        async with ends.bridge(direction="out"):
            await eventually(lambda: len(ends.on_bus("tidegate")) == 1, 30, "hard is told")
    # The store is gone while no bridge runs; a new one finds what is left on the bus. Another cluster's is
    # none of its business.
    other = FeedbackEvent(
        coordinator_id="theirs",
        queue_size=1,
        capacity=1,
        level=BackpressureLevel.hard,
        source="tidegate",
        ts=1,
    )
    ends.client.xadd(
        ends.key, {"data": encode_envelope(other, headers={"tidegate-origin": "another/md.feedback.v1"})}
    )
    async with ends.bridge(direction="out"):
        await eventually(lambda: len(ends.on_bus("tidegate")) == 3, 30, "it is taken back")
    assert [(who, level) for who, level, _ in ends.on_bus("tidegate")] == [
        ("tidegate-store", "hard"),
        ("theirs", "hard"),
        ("tidegate-store", "ok"),
    ]


@pytest.mark.covers("event bus without Redis")
async def test_a_bus_in_memory_is_bridged(ends: Ends) -> None:
    bus = InMemoryBus()
    core = CoreBus(bus, "telemetry.feedback", out_stream="telemetry.stores")
    event = FeedbackEvent(
        coordinator_id="bars-coord", queue_size=9, capacity=10, level=BackpressureLevel.hard, ts=1
    )
    async with ends.bridge(core) as bridge:
        await bus.publish("telemetry.feedback", event)
        await eventually(lambda: ends.last() == {"hard"}, 30, "hard")
        await bus.publish(
            "telemetry.feedback", RateAdjustment(provider="p", scale=1, reason=BackpressureLevel.ok, ts=1)
        )
        await eventually(lambda: bridge.counts.refused == 1, 30, "garbage is refused")
        with Coordinator(ends.bootstrap, ends.topic, "tidegate-store", heartbeat_s=0.2) as store:
            store.say({0: "soft"})
            out = bus.subscribe("telemetry.stores", group="dash", consumer="c")
            envelope = await asyncio.wait_for(anext(out), 10)
        assert (envelope.meta.schema_id, envelope.payload.level) == ("telemetry.FeedbackEvent", "soft")
        await bus.publish("telemetry.feedback", event.model_copy(update={"level": BackpressureLevel.ok}))
        await eventually(lambda: ends.last() == {"ok"}, 30, "ok")


@pytest.mark.covers("event bus without Redis")
def test_without_the_redis_package_the_bridge_can_be_embedded(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['redis'] = None\n"
        "import streams.ecosystem.pulse, streams.ecosystem.buses\n"
        "from market_data_core.events import create_event_bus\n"
        "print(type(create_event_bus('inmem')).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.stdout.decode().strip(), done.returncode) == ("InMemoryBus", 0), done.stderr.decode()


async def test_redis_comes_back_without_its_data(ends: Ends) -> None:
    async with ends.bridge() as bridge:
        await ends.say("hard")
        await eventually(lambda: ends.last() == {"hard"}, 30, "hard")
        ends.client.delete(ends.key)
        await ends.say("ok")
        await eventually(lambda: ends.last() == {"ok"}, 30, "what is said after it is heard")
        await eventually(lambda: ends.pending() == 0, 30, "and acknowledged")
        assert bridge.health().state == HealthState.healthy
