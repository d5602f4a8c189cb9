"""``tidegate state``: what a worker leaves is shown, and deleted once the worker is gone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from support.cli import tidegate
from support.inprocess import Cli, in_process
from support.kafka import TestTopics
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

NOW = time.time_ns() // 10**9 * 10**9


@pytest.fixture
def cli(
    kafka: str,
    topics: TestTopics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Commands and workers with the settings of this test's topics, of which two are ticks."""
    prefix = topics.prefix
    Path(tmp_path / "tidegate.toml").write_text(
        f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\n'
        f'[[ticks]]\ntopic = "{prefix}a.v1"\nbars = ["1m"]\n[[ticks]]\ntopic = "{prefix}b.v1"\nbars = ["1m"]\n'
    )
    monkeypatch.chdir(tmp_path)
    return in_process(monkeypatch, capsys)


def test_state_is_shown_and_reset_once_nobody_is_at_work(
    cli: Cli, kafka: str, topics: TestTopics, tmp_path: Path
) -> None:
    for name in ("a.v1", "b.v1", *OWN_TOPICS):
        topics(name)
    a, b = f"{topics.prefix}a.v1", f"{topics.prefix}b.v1"
    producer = Producer({"bootstrap.servers": kafka})
    for topic, partition, symbol in ((a, 0, "A"), (a, 0, "A2"), (a, 2, "B"), (b, 0, "C")):
        value = json.dumps({"symbol": symbol, "ts_ns": NOW, "price": "1", "size": "1"})
        producer.produce(topic, value, symbol, partition)
    assert producer.flush(10) == 0

    def shown() -> dict[str, tuple[int, int]]:
        rows = map(json.loads, cli("state", "show", "--json").out.splitlines())
        return {f"{row['topic']}[{row['partition']}]": (row["position"], row["instruments"]) for row in rows}

    expected = {f"{a}[0]": (1, 2), f"{a}[2]": (0, 1), f"{b}[0]": (0, 1)}
    with Worker(tmp_path, "worker", tmp_path / "tidegate.toml") as worker:
        wait_assigned(Group(kafka, f"{topics.prefix}tidegate-bars"), 1, a, [worker])
        until(lambda: shown() == expected, 20, "the state holds all there is")
        live = cli("state", "reset", "--topic", a, "--yes")
        assert worker.stop() == 0

    assert (live.status, live.out) == (1, "")
    assert f"group {topics.prefix}tidegate-bars is at work" in live.err
    assert " at " in live.err
    table = cli("state", "show", "--topic", b)
    assert table.out.split()[:6] == ["ticks", "position", "instruments", "rows", "bytes", "version"]
    assert table.out.splitlines()[1].startswith(f"{b}[0]")

    for answer, hint in ((b"", True), (b"n\n", False)):
        unsure = tidegate("state", "reset", "--topic", a, cwd=tmp_path, input_bytes=answer)
        said = unsure.stderr.decode()
        assert (unsure.returncode, unsure.stdout.strip()) == (1, b""), said
        assert f"{a}[0]@1: 2 instruments in 3 rows" in said
        assert "nothing was deleted" in said
        assert ("say --yes" in said) is hint
    assert shown() == expected

    reset = cli("state", "reset", "--topic", a, "--yes", "--json")
    assert (reset.status, reset.err) == (0, "")
    assert json.loads(reset.out) == {"topic": a, "rows": 6, "partitions": {"0": 3, "2": 3}}
    assert shown() == {f"{b}[0]": (0, 1)}
    again = cli("state", "reset", "--topic", a, "--yes")
    assert (again.status, again.err) == (0, f"no state of {a}: nothing was deleted\n")


def test_no_state_and_rows_that_cannot_be_read(cli: Cli, kafka: str, topics: TestTopics) -> None:
    missing = cli("state", "show")
    state = topics("bars.state.v1")
    empty = cli("state", "show")
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(state, b"\xc1", f"{topics.prefix}a.v1|", 0)
    producer.produce(state, b"\x92\x63\x90", f"{topics.prefix}a.v1|A", 0)
    producer.produce(state, b"\x92\x63\x90", None, 3)
    assert producer.flush(10) == 0
    odd = cli("state", "show")

    assert missing.status == 1
    assert f"lacks topic {state}" in missing.err
    assert (empty.status, empty.out, empty.err) == (0, "", "no state\n")
    assert odd.status == 0
    assert [line.split()[:3] for line in odd.out.splitlines()[2:]] == [[f"{topics.prefix}a.v1[0]", "-", "-"]]
    assert "unreadable, 99" in odd.out
    assert cli("state", "reset", "--topic", f"{topics.prefix}a.v1", "--yes").status == 0
    assert "a.v1" not in cli("state", "show").out
