"""`tidegate bridge` as a process: what users get wrong, and a store of the ecosystem that pauses a worker by it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from support import tiers
from support.cli import assert_one_clear_line, tidegate
from support.inprocess import Cli, Done, in_process
from support.kafka import TestTopics
from support.probing import Probe
from support.pulse import Ends
from support.redis_server import running_redis
from support.scene import ALL, Scene, held
from support.wait import eventually, until
from support.workers import Settled, Worker, environment, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.covers("pulse bridge")]

STORE = str(Path(__file__).parents[1] / "support" / "ecosystem_store.py")


class EcosystemStore:
    """A process of market-data-store, and how many items wait in its queue, of 20: soft from 11, hard from 16."""

    def __init__(self, folder: Path, coordinator: str, **variables: str) -> None:
        self._file = folder / "waiting"
        self.waits(0)
        self._log = folder / "ecosystem-store.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", STORE, coordinator, str(self._file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(EVENT_BUS_BACKEND="redis", **variables),
                cwd=folder,
            )

    def waits(self, items: int) -> None:
        """Let so many items wait; 0: all is written."""
        new = self._file.with_suffix(".new")
        new.write_text(str(items))
        new.replace(self._file)  # it is never seen empty

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        if exc[0] is not None:
            print(f"--- store\n{self._log.read_text()[-3000:]}")


def bridge(scene: Scene, name: str, redis: str, *arguments: str, **variables: str) -> Worker:
    """`tidegate bridge pulse` as a process."""
    return Worker(
        scene.folder,
        name,
        scene.config,
        *arguments,
        command=("bridge", "pulse"),
        REDIS_URL=redis,
        **variables,
    )


@pytest.mark.end_to_end
@pytest.mark.covers("feedback loop")
@pytest.mark.covers("escalation")
@pytest.mark.covers("recovery")
def test_a_store_made_of_market_data_store_alone_pauses_and_resumes_a_worker(
    kafka: str, topics: TestTopics, redis: str, tmp_path: Path
) -> None:
    scene = Scene(kafka, topics, f"duckdb:{tmp_path}/unused.duckdb", tmp_path, 'feedback_ttl = "2s"')
    namespace = {"MD_NAMESPACE": f"t{topics.prefix.rstrip('.')}"}
    with (
        EcosystemStore(tmp_path, "bars-coord", REDIS_URL=redis, **namespace) as store,
        scene.worker("bars", "bars") as worker,
        bridge(scene, "bridge-1", redis, **namespace) as first,
        scene.load() as load,
    ):
        wait_assigned(scene.bars_group, 1, scene.ticks, [worker])
        until(lambda: first.events("bridge.began"), 20, "the bridge runs")
        until(lambda: scene.keeps_up(load), 30, "the worker keeps up")

        store.waits(13)
        until(lambda: held([worker]) == dict.fromkeys(ALL, 0.5), 15, "all are at half their rate")
        store.waits(18)
        until(lambda: held([worker]) == dict.fromkeys(ALL, 0.0), 15, "all are paused")
        # That takes three seconds at least: the store speaks once, and its word counts for two.
        stand = until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "nothing is consumed")
        assert held([worker]) == dict.fromkeys(ALL, 0.0)
        assert not worker.events("feedback.silent")

        first.kill()
        until(lambda: not held([worker]), 15, "without a bridge the pause ends")
        until(lambda: sum(scene.committed()) > sum(stand), 15, "ticks are consumed")
        with bridge(scene, "bridge-2", redis, **namespace) as second:
            until(lambda: held([worker]) == dict.fromkeys(ALL, 0.0), 20, "a new one knows what was said last")
            until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "nothing is consumed")
            store.waits(0)
            until(lambda: not held([worker]), 15, "all is resumed, with nobody's help")
            until(lambda: scene.keeps_up(load), 60, "it has caught up")
            assert second.stop() == 0
            levels = [entry["pressure"] for entry in second.events("bridge.told")]
            assert levels == ["hard", "ok"], "each of its words once"
        assert [entry["pressure"] for entry in first.events("bridge.told")] == ["soft", "hard"]
        load.stop()
        assert worker.stop() == 0


@pytest.fixture
async def ends(redis: str, topics: TestTopics) -> AsyncIterator[Ends]:
    ends = Ends(redis, topics)
    yield ends
    await ends.close()


async def test_an_operator_ends_what_a_dead_store_asked_for(ends: Ends, tmp_path: Path) -> None:
    stream = f"{ends.namespace}.telemetry.feedback"
    await ends.say("hard")
    async with ends.bridge():
        await eventually(lambda: ends.last() == {"hard"}, 30, "hard")
        wrong = tidegate(
            "bridge", "release", "bars", "--stream", stream, cwd=tmp_path, REDIS_URL=ends.redis_url
        )
        assert_one_clear_line(wrong, "bars is not among", "who spoke there: bars-coord")
        done = tidegate(
            "bridge", "release", "bars-coord", "--stream", stream, "--redis-url", ends.redis_url, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (0, b"bars-coord was hard and is ok\n")
        await eventually(lambda: ends.last() == {"ok"}, 30, "ok")
    assert [level for _, level, _ in ends.on_bus("store")] == ["hard", "ok"]


@contextmanager
def running(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agents", "bridge", "pulse", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
        cwd=folder,
    )
    with process:
        yield process
        process.kill()


async def test_sigterm_ends_it_with_a_summary(ends: Ends, tmp_path: Path) -> None:
    stream = f"{ends.namespace}.telemetry.feedback"
    variables = {
        "REDIS_URL": ends.redis_url,
        "TIDEGATE_BROKER": ends.bootstrap,
        "TIDEGATE_TOPIC_PREFIX": ends.prefix,
    }
    with running(tmp_path, "--stream", stream, "--json", **variables) as process:
        await ends.say("soft")
        await eventually(lambda: ends.last() == {"soft"}, 20, "soft")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err.decode()
    assert b'"heard": 1' in out or b'"told": 1' in out, out
    assert ends.pending() == 0


@pytest.fixture
def mistaken(
    redis: str,
    topics: TestTopics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[tuple[Ends, Cli]]:
    """Commands in this process, told of servers that are there."""
    ends = Ends(redis, topics)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "REDIS_URL": redis,
        "TIDEGATE_BROKER": ends.bootstrap,
        "TIDEGATE_TOPIC_PREFIX": ends.prefix,
    }.items():
        monkeypatch.setenv(name, value)
    yield ends, in_process(monkeypatch, capsys)
    ends.close_readers()


def assert_told(done: Done, *words: str) -> None:
    lines = [line for line in done.err.splitlines() if not line.startswith("  hint: ")]
    assert (done.status, len(lines)) == (1, 1), done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("--redis-url", "http://redis"), {}, ["URL of Redis", "redis://HOST:PORT/0"]),
        (("--redis-url", "redis://127.0.0.1:1/0"), {}, ["127.0.0.1:1/0", "is it running"]),
        ((), {"EVENT_BUS_BACKEND": "inmem"}, ["EVENT_BUS_BACKEND is 'inmem'", "--redis-url"]),
        ((), {"SCHEMA_TRACK": "v9"}, ["SCHEMA_TRACK is 'v9'", "v1 or v2"]),
        (("--partitions", "7"), {}, ["has no partition 7", "it has 2"]),
        ((), {"TIDEGATE_TOPIC_PREFIX": "nowhere."}, ["lacks topic nowhere.feedback.v1", "topics apply"]),
    ],
)
def test_a_mistake_is_one_line(
    mistaken: tuple[Ends, Cli],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    words: list[str],
) -> None:
    _, cli = mistaken
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert_told(cli("bridge", "pulse", *arguments), *words)


def test_a_key_of_another_kind_is_named(mistaken: tuple[Ends, Cli]) -> None:
    ends, cli = mistaken
    ends.client.set(f"mdp:{ends.namespace}", "a string")
    assert_told(cli("bridge", "pulse", "--stream", ends.namespace), "WRONGTYPE", "MD_NAMESPACE")


def test_a_wrong_password_is_one_line_without_the_password(
    topics: TestTopics, mistaken: tuple[Ends, Cli], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cli = mistaken
    with tiers.REDIS.started(lambda: running_redis("--requirepass right")) as server:
        told = []
        for login in (":wr0ng@", ""):
            monkeypatch.setenv("REDIS_URL", f"redis://{login}{server.address}/0")
            told.append(cli("bridge", "pulse"))
        for done in told:
            assert_told(done, server.address, "is the password in REDIS_URL right?")
            assert "wr0ng" not in done.err


@pytest.mark.end_to_end
@pytest.mark.covers("metrics")
@pytest.mark.covers("HealthStatus")
async def test_a_bridge_answers_how_it_is_and_what_it_has_read(ends: Ends, tmp_path: Path) -> None:
    config = tmp_path / "tidegate.toml"
    config.write_text(f'broker = "{ends.bootstrap}"\ntopic_prefix = "{ends.prefix}"\n')
    stream = f"{ends.namespace}.telemetry.feedback"
    with Worker(
        tmp_path,
        "bridge",
        config,
        *("--http", "127.0.0.1:0", "--stream", stream, "--redis-url", ends.redis_url),
        command=("bridge", "pulse"),
    ) as running:
        probe = await asyncio.to_thread(Probe, running)
        await eventually(lambda: probe.ready and probe.part("bridge")["state"] == "healthy", 30, "it runs")
        await ends.say("hard")
        success = "pulse_consume_total", stream, "v1", "success"
        await eventually(lambda: probe.metrics()[success] == 1, 30, "it is counted")
        assert probe.metrics()["pulse_consume_total", stream, "v1", "error"] == 0
        assert 0 <= probe.metrics()["pulse_lag_ms", stream] < 60_000
        assert running.stop() == 0
