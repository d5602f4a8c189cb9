"""``tidegate tail`` and ``tidegate status``, as processes against Apache Kafka with workers at work."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.feedback import Feedback, Level, encode_feedback
from schemas.rate import RateAdjustment, encode_rate
from support.cli import assert_one_clear_line, tidegate
from support.kafka import TestTopics, records
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, environment, wait_assigned

pytestmark = pytest.mark.kafka


@dataclass
class Place:
    """A directory with the settings of this test's topics, and who speaks on them."""

    folder: Path
    topics: TestTopics
    producer: Producer

    @property
    def config(self) -> Path:
        return self.folder / "tidegate.toml"

    def send(self, name: str, value: bytes | None, partition: int = 0) -> None:
        self.producer.produce(self.topics.prefix + name, value, partition=partition)
        assert self.producer.flush(10) == 0

    def say(self, level: str, partition: int = 0, size: int = 41, by: str = "db:1") -> None:
        event = Feedback(
            coordinator_id=by,
            queue_size=size,
            capacity=48,
            level=Level(level),
            ts=time.time(),
            partition=partition,
            epoch=1,
            drain_rate=12.0,
        )
        self.send("feedback.v1", encode_feedback(event), partition)

    def decide(self, scale: float, partition: int = 0, ts: float | None = None) -> None:
        event = RateAdjustment(
            provider=f"{self.topics.prefix}tidegate",
            scale=scale,
            reason=Level.hard,
            ts=time.time() if ts is None else ts,
            partition=partition,
            coordinator_id="db:1",
        )
        self.send("rate.v1", encode_rate(event), partition)

    def status(self) -> dict[str, Any]:
        done = tidegate("status", "--json", cwd=self.folder)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def place(kafka: str, topics: TestTopics, tmp_path: Path) -> Place:
    prefix = topics.prefix
    (tmp_path / "tidegate.toml").write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\n'
        f'session_timeout = "6s"\nstore = "duckdb:{tmp_path / "bars.duckdb"}"\n'
        f'[[ticks]]\ntopic = "{prefix}ticks.v1"\nbars = ["1s"]\n'
    )
    return Place(tmp_path, topics, Producer({"bootstrap.servers": kafka, "linger.ms": 1}))


@contextmanager
def tailing(place: Place, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """``tidegate tail`` in the background, and the file that it writes to."""
    out = place.folder / "tail.out"
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "agents", "tail", *arguments],
            cwd=place.folder,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    try:
        yield process, out
    finally:
        process.kill()
        process.communicate()


class TestTail:
    def test_what_is_there_and_what_comes_ends_by_count(self, place: Place) -> None:
        place.topics("feedback.v1")
        for partition in (0, 2, 2):
            place.say("hard", partition)
        place.send("feedback.v1", b"garbage", 2)
        place.say("ok", 2, size=0)

        lines = tidegate("tail", "feedback", "--from-beginning", "--count", "4", cwd=place.folder)
        objects = tidegate(
            *("tail", "feedback", "--from-beginning", "--partition", "2", "--count", "3", "--json"),
            cwd=place.folder,
        )

        assert lines.returncode == 0
        assert lines.stdout.count(b"hard  queue 41/48  drain 12/s  by db:1\n") == 3
        assert objects.returncode == 0
        assert [json.loads(line)["level"] for line in objects.stdout.splitlines()] == ["hard", "hard", "ok"]
        [told] = objects.stderr.decode().splitlines()
        assert f"{place.topics.prefix}feedback.v1[2]@2 is skipped" in told

    def test_rates_for_some_seconds(self, place: Place) -> None:
        place.topics("rate.v1")
        place.decide(0, 1, ts=1723161600.0)
        began = time.monotonic()
        done = tidegate("tail", "rate", "--from-beginning", "--seconds", "2", cwd=place.folder)

        assert (done.returncode, done.stderr) == (0, b"")
        assert time.monotonic() - began < 10
        assert done.stdout.decode() == (
            "2024-08-09T00:00:00.000Z  partition 1  paused  scale 0     reason hard  "
            f"by db:1  provider {place.topics.prefix}tidegate\n"
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_is_its_ordinary_end(self, place: Place, number: signal.Signals) -> None:
        place.topics("feedback.v1")
        place.say("soft")
        with tailing(place, "feedback", "--from-beginning") as (process, out):
            until(lambda: out.read_text().count("\n") == 1, 20, "it prints what is there")
            place.say("hard")
            until(lambda: out.read_text().count("\n") == 2, 20, "it prints what comes")
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (0, "")

    def test_it_ends_in_silence_once_nobody_reads_it(self, place: Place) -> None:
        place.topics("feedback.v1")
        place.say("soft")  # one line, and never another one
        with subprocess.Popen(
            [sys.executable, "-m", "agents", "tail", "feedback", "--from-beginning"],
            cwd=place.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process:
            assert process.stdout
            assert process.stderr
            assert b"soft" in process.stdout.readline()
            process.stdout.close()
            try:
                assert process.wait(10) == 0
            finally:
                process.kill()
            assert process.stderr.read() == b""

    def test_what_is_not_there_is_one_clear_line(self, place: Place) -> None:
        for command in (("tail", "feedback"), ("tail", "rate")):
            assert_one_clear_line(
                tidegate(*command, cwd=place.folder), "lacks topic", "tidegate topics apply"
            )
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]

        def ask(command: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
            return tidegate(*command, "--broker", f"127.0.0.1:{port}", cwd=place.folder)

        commands = ("tail", "rate"), ("status",), ("status", "--json")
        with ThreadPoolExecutor(len(commands)) as at_once:  # each waits for an answer, for some seconds
            answers = list(at_once.map(ask, commands))
        for done in answers:
            assert_one_clear_line(done, "did not answer", "is it running")
            assert done.stdout == b""


class TestStatus:
    def test_nothing_is_there(self, place: Place) -> None:
        done = tidegate("status", cwd=place.folder)
        out = done.stdout.decode()

        assert (done.returncode, done.stderr) == (0, b"")
        prefix = place.topics.prefix
        for name in ("ticks.v1", "bars.v1", "feedback.v1", "rate.v1"):
            assert f"topic {prefix}{name} does not exist" in out
        assert f"group {prefix}tidegate-bars has no members: no bars are made" in out
        assert f"group {prefix}tidegate-store has no members: no bars are stored" in out

    def test_a_held_partition_nobody_owns_and_records_that_cannot_be_read(self, place: Place) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            place.topics(name)
        for _ in range(7):
            place.send("ticks.v1", b"{}", 3)
        place.decide(0.5, 3, ts=1723161600.0)
        for name in ("rate.v1", "feedback.v1"):
            place.send(name, b"garbage", 3)
        place.decide(0, 3)

        found = place.status()
        shown = tidegate("status", cwd=place.folder).stdout.decode()

        row = found["ticks"][3]
        assert (row["lag"], row["scale"], row["since"], row["owner"]) == (7, 0.0, 1723161600.0, None)
        assert row["note"] == "no worker owns it"
        [line] = (line for line in shown.splitlines() if "ticks.v1[3]" in line)
        assert "2024-08-09T00:00:00.000Z (" in line
        assert line.endswith("no worker owns it")

    def test_more_decisions_than_are_looked_at(self, place: Place) -> None:
        for name in ("ticks.v1", "rate.v1"):
            place.topics(name)
        for number in range(450):
            place.producer.produce(place.topics.prefix + "rate.v1", b"x", partition=number % 2)
        place.decide(0, 1, ts=5.0)
        assert place.status()["ticks"][1]["since"] == 5.0

    def test_workers_at_work_and_a_store_that_asks_for_less(self, place: Place, kafka: str) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            place.topics(name)
        prefix = place.topics.prefix
        ticks = f"{prefix}ticks.v1"
        with (
            Worker(place.folder, "bars", place.config, "--roles", "bars") as bars,
            Worker(place.folder, "store", place.config, "--roles", "store") as store,
        ):
            wait_assigned(Group(kafka, f"{prefix}tidegate-bars"), 1, ticks, [bars])
            wait_assigned(Group(kafka, f"{prefix}tidegate-store"), 1, f"{prefix}bars.v1", [store])

            def both_speak() -> dict[str, Any] | None:
                place.say("hard", 2)
                found = place.status()
                held = found["ticks"][2]["scale"] == 0
                own = [one for one in found["coordinators"] if one["partitions"] == [0, 1, 2, 3]]
                return found if held and own else None

            found = until(both_speak, 30, "it is held by the one, and the other speaks of all partitions")
            assert found is not None
            row = found["ticks"][2]
            assert (row["reason"], row["coordinator_id"], row["note"]) == ("hard", "db:1", None)
            assert abs(time.time() - row["since"]) < 60
            assert {one["owner"] for one in found["ticks"]} == {found["groups"]["bars"]["members"][0]["id"]}
            assert [one["scale"] for one in found["ticks"]] == [1, 1, 0, 1]
            [mine] = (one for one in found["coordinators"] if one["coordinator_id"] == "db:1")
            assert (mine["partitions"], mine["level"], mine["queue_size"]) == ([2], "hard", 41)
            assert mine["age"] < 10
            assert found["problems"] == []

            now = time.time_ns()
            for partition in (1, 2):
                for number in range(5):
                    tick = {"symbol": f"S{partition}", "ts_ns": now + number, "price": "1", "size": "1"}
                    place.send("ticks.v1", json.dumps(tick).encode(), partition)

            def lags() -> list[int]:
                place.say("hard", 2)
                return [one["lag"] for one in place.status()["ticks"]]

            until(lambda: lags() == [0, 0, 5, 0], 30, "only what is held lags")
            shown = tidegate("status", cwd=place.folder).stdout.decode()
            assert f"group {prefix}tidegate-bars: 1 member, 5 ticks behind" in shown

            for number in range(3):  # a second later each, so that bars close
                tick = {"symbol": "S0", "ts_ns": now + number * 10**9, "price": "1", "size": "1"}
                place.send("ticks.v1", json.dumps(tick).encode(), 0)

            def stored() -> bool:
                place.say("hard", 2)
                there = any(records(kafka, f"{prefix}bars.v1", partition) for partition in (0, 1))
                return there and place.status()["groups"]["store"]["lag"] == 0

            until(stored, 30, "there are bars, and all of them are stored")
            bars.kill()
            until(lambda: place.status()["ticks"][2]["note"] == "no worker owns it", 30, "its owner has died")
            dead = place.status()
            assert dead["ticks"][2]["scale"] == 0, "it is what was decided last"
            assert dead["problems"] == [f"group {prefix}tidegate-bars has no members: no bars are made"]
            assert store.stop() == 0
