"""Refused ticks land in their bars: a worker, PostgreSQL, and ``tidegate dlq`` beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from confluent_kafka import Producer

from support.bars import execute, schema
from support.cli import tidegate
from support.inprocess import Cli, in_process
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

SECOND = 10**9
T0 = time.time_ns() // (60 * SECOND) * 60 * SECOND - 600 * SECOND


@dataclass
class Desk:
    """A worker on topics of its own, and what an operator does beside it."""

    topics: TestTopics
    dsn: str
    folder: Path
    cli: Cli
    producer: Producer

    def send(self, topic: str, *values: bytes) -> None:
        """Records to partition 1, in this order."""
        for value in values:
            self.producer.produce(self.topics.prefix + topic, value, b"key", 1, headers=[("trace", b"1")])
        assert self.producer.flush(20) == 0

    def bar(self, instrument: str, second: int) -> tuple[int, int] | None:
        """Revision and trades of a stored bar."""
        try:
            found = execute(
                self.dsn,
                f"SELECT revision, trade_count FROM bars WHERE instrument = '{instrument}' "
                f"AND type = '1s' AND start_ns = {T0 + second * SECOND}",
            )
        except asyncpg.UndefinedTableError:
            return None
        return tuple(found[0]) if found else None

    def until_bar(self, instrument: str, second: int, revision: int, trades: int) -> None:
        """Wait for this version of a bar."""
        wanted = (revision, trades)
        until(lambda: self.bar(instrument, second) == wanted, 20, f"bar {second} of {instrument} is {wanted}")

    def dlq(self, *arguments: str) -> str:
        """Standard output of ``tidegate dlq ARGUMENTS``."""
        done = self.cli("dlq", *arguments)
        assert done.status == 0, done.err
        return done.out

    def raw(self, where: str) -> bytes:
        """The bytes of a dead letter, as a process of its own writes them."""
        return tidegate("dlq", "show", where, "--raw", cwd=self.folder).stdout

    def letters(self, count: int, *conditions: str) -> list[dict[str, Any]]:
        """The dead letters, once there are so many."""

        def found() -> list[dict[str, Any]]:
            out = self.dlq("list", "--all", "--json", *conditions)
            return [json.loads(line) for line in out.splitlines()]

        return until(lambda: rows if len(rows := found()) >= count else [], 30, f"{count} dead letters")


@pytest.fixture
def desk(
    kafka: str,
    topics: TestTopics,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    for name in ("ticks.v1", "kraken.v1", *OWN_TOPICS):
        topics(name)
    prefix = topics.prefix
    with schema(postgres) as dsn:
        config = tmp_path / "tidegate.toml"
        config.write_text(
            f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\nstore = "{dsn}"\n'
            f'[[ticks]]\ntopic = "{prefix}ticks.v1"\nbars = ["1s"]\nlate = "dead-letter"\ndedupe = "off"\n'
            f'[[ticks]]\ntopic = "{prefix}kraken.v1"\nfeed = "kraken"\nbars = ["1s"]\nlate = "dead-letter"\n'
        )
        with Worker(tmp_path, "worker", config) as worker:
            group = Group(kafka, f"{prefix}tidegate-bars")
            wait_assigned(group, 1, f"{prefix}ticks.v1", [worker])
            producer = Producer({"bootstrap.servers": kafka})
            yield Desk(topics, dsn, tmp_path, in_process(monkeypatch, capsys), producer)
            assert worker.stop() == 0


def _tick(at: float, **changes: Any) -> bytes:
    fields = {"symbol": "A", "ts_ns": T0 + round(at * SECOND), "price": "100", "size": "1"}
    return json.dumps({**fields, **changes}).encode()


def _kraken(*ats: float) -> bytes:
    """Trades without ids."""
    trades = [["100.0", "1", f"{T0 // SECOND + at:.6f}", "s", "l", ""] for at in ats]
    return json.dumps([337, trades, "trade", "XBT/USD"]).encode()


def test_what_was_refused_lands_in_its_bar_once(desk: Desk) -> None:
    garbage = b"\x00\xff garbage"
    ahead = _tick(0.5, recv_ns=T0 - 60 * SECOND)
    late = _tick(1.5)
    desk.send("ticks.v1", _tick(0), _tick(1), _tick(9), garbage, ahead, late)
    desk.until_bar("A", 0, 0, 1)

    found = {row["reason"]: row for row in desk.letters(3)}
    assert {reason: row["offset"] for reason, row in found.items()} == {
        "malformed": 3,
        "future": 4,
        "late": 5,
    }
    for reason, value in (("malformed", garbage), ("future", ahead), ("late", late)):
        assert desk.raw(found[reason]["where"]) == value

    assert json.loads(desk.dlq("replay", "--all", "--dry-run", "--json"))["would_replay"] == 3
    for _ in range(2):
        account = json.loads(desk.dlq("replay", "--reason", "future", "--reason", "late", "--json"))
        assert (account["replayed"], account["refused"]) == (2, 0)
        desk.until_bar("A", 0, 1, 2)
        desk.until_bar("A", 1, 1, 2)

    # What comes back keeps its origin and its headers, and is replayed once however often it came.
    for again in (1, 2):
        assert json.loads(desk.dlq("replay", "--reason", "malformed", "--json"))["replayed"] == 1
        back = desk.letters(1 + again, "--reason", "malformed")
        assert {row["offset"] for row in back} == {3}
        assert sum(row["replayed"] is not None for row in back) == again
    shown = json.loads(desk.dlq("show", back[-1]["where"], "--json"))
    assert [header["name"] for header in shown["headers"]] == ["trace", "tidegate"]
    assert len(desk.letters(0)) == 5

    # The bars are those of each tick once, also after all of that was applied.
    desk.send("ticks.v1", _tick(20))
    desk.until_bar("A", 9, 0, 1)
    assert (desk.bar("A", 0), desk.bar("A", 1)) == ((1, 2), (1, 2))
    assert len(desk.letters(0)) == 5


def test_of_a_record_of_many_trades_only_the_refused_one_counts(desk: Desk) -> None:
    desk.send("kraken.v1", _kraken(0.25, 9), _kraken(9.25, 0.5, 9.5))
    (letter,) = desk.letters(1)
    assert (letter["reason"], letter["index"]) == ("late", 1)

    for _ in range(2):
        desk.dlq("replay", letter["where"])
    desk.until_bar("XBT/USD", 0, 1, 2)
    desk.send("kraken.v1", _kraken(20))
    desk.until_bar("XBT/USD", 9, 0, 3)
    assert desk.bar("XBT/USD", 0) == (1, 2)
    assert len(desk.letters(0)) == 1
