"""``tidegate topics``, ``replay`` and ``feed`` against Apache Kafka."""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import ConfigResource, ResourceType

from schemas.codecs import get_codec
from schemas.codecs.csv import COLUMNS
from streams.loop import partition_for
from streams.pipeline import SOURCE_HEADER
from streams.topics import Topics
from support.cli import assert_one_clear_line, tidegate
from support.inprocess import Cli, in_process
from support.kafka import TestTopics
from support.wait import until
from support.workers import environment

T0_NS = 1_723_161_255_342_000_000


@pytest.fixture
def cli(
    topics: TestTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Commands with the settings of this test's topics, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_BROKER", topics.bootstrap)
    monkeypatch.setenv("TIDEGATE_TOPIC_PREFIX", topics.prefix)
    monkeypatch.setenv("TIDEGATE_TICKS", json.dumps([{"topic": f"{topics.prefix}ticks.v1"}]))
    return in_process(monkeypatch, capsys)


def existing(topics: TestTopics) -> dict[str, int]:
    """The topics of this test, without the prefix, with their partition counts."""
    seen = topics.admin.list_topics(timeout=10).topics
    return {
        name.removeprefix(topics.prefix): len(topic.partitions)
        for name, topic in seen.items()
        if name.startswith(topics.prefix)
    }


def config_of(topics: TestTopics, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topics.prefix + name)
    entries = topics.admin.describe_configs([resource])[resource].result(10)
    return {key: entry.value for key, entry in entries.items()}


def read_all(bootstrap: str, topic: str) -> list[Message]:
    """All records of a topic, partition by partition."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "enable.partition.eof": True, "log_level": 0}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, ended = [], 0
    try:
        while ended < len(partitions):
            message = consumer.poll(30)
            assert message is not None, "the broker says nothing"
            if (error := message.error()) is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                ended += 1
    finally:
        consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def lines(n: int, symbols: Iterable[str] = ("A", "B", "C"), step_ns: int = 10**7) -> list[dict[str, Any]]:
    names = list(symbols)
    return [
        {
            "symbol": names[i % len(names)],
            "ts_ns": T0_NS + i * step_ns,
            "price": "1.5",
            "size": "1",
            "trade_id": i,
        }
        for i in range(n)
    ]


def write_jsonl(path: Path, ticks: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    return path


class TestTopicsCommand:
    def test_apply_makes_the_topics_as_planned_and_a_second_time_changes_nothing(
        self, cli: Cli, topics: TestTopics
    ) -> None:
        before = cli("topics", "plan", "--check")
        applied = cli("topics", "apply")
        again = cli("topics", "apply", "--json")
        after = cli("topics", "plan", "--check")

        assert before.status == 1
        assert before.out.count("create ") == 8
        assert (applied.status, applied.err) == (0, "")
        assert applied.out.count(" created ") == 8
        assert json.loads(again.out)["changes"] == []
        assert (after.status, after.out.count("as planned")) == (0, 8)
        own = Topics("")
        names = {"ticks.v1", own.bars, own.dead_letters, own.state, own.feedback, own.rate}
        assert existing(topics) == dict.fromkeys(names, 4) | {own.control: 1, own.audit: 1}
        assert config_of(topics, "bars.v1")["cleanup.policy"] == "compact"
        assert config_of(topics, "ticks.v1")["retention.ms"] == "604800000"

    def test_plan_changes_nothing(self, cli: Cli, topics: TestTopics) -> None:
        assert cli("topics", "plan").status == 0
        assert existing(topics) == {}

    def test_a_setting_that_somebody_changed_is_set_back_and_others_are_left(
        self, cli: Cli, topics: TestTopics
    ) -> None:
        topics("ticks.v1", retention_ms=1000, flush_ms=7000)

        plan = cli("topics", "plan")
        applied = json.loads(cli("topics", "apply", "--json").out)

        assert "retention.ms: 1000 → 604800000" in plan.out
        (change,) = (row for row in applied["changes"] if row["topic"] == f"{topics.prefix}ticks.v1")
        assert change["action"] == "set-config"
        assert change["config"] == {"retention.ms": {"is": "1000", "planned": "604800000"}}
        assert change["error"] is None
        config = config_of(topics, "ticks.v1")
        assert (config["retention.ms"], config["flush.ms"]) == ("604800000", "7000")

    def test_counts_that_differ_are_told_and_left_as_they_are(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        shown = cli("topics", "show").out
        (tmp_path / "two.toml").write_text(shown.replace("partitions = 4", "partitions = 2"))
        assert cli("topics", "apply", "--file", "two.toml").status == 0

        plan, check, applied = cli("topics", "plan"), cli("topics", "plan", "--check"), cli("topics", "apply")

        assert (plan.status, check.status, applied.status) == (0, 1, 0)
        assert "partitions: 2, planned 4 (not changed)" in plan.out
        assert applied.err.count("not changed: partitions of ") == 6
        assert sorted(existing(topics).values()) == [1, 1, 2, 2, 2, 2, 2, 2]

    def test_topics_are_not_made_with_other_counts_than_the_ticks_have(
        self, cli: Cli, topics: TestTopics
    ) -> None:
        topics("ticks.v1", partitions=7)

        plan, applied = cli("topics", "plan"), cli("topics", "apply")

        assert plan.status == 0
        assert f"{topics.prefix}ticks.v1 7" in plan.err
        assert (applied.status, applied.out) == (1, "")
        assert "must have equal partition counts" in applied.err
        assert existing(topics) == {"ticks.v1": 7}

    def test_more_copies_than_brokers_are_refused_before_anything_is_made(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        brokers = len(topics.admin.list_topics(timeout=10).brokers)
        shown = cli("topics", "show").out
        (tmp_path / "more.toml").write_text(shown.replace("replication = 1", f"replication = {brokers + 1}"))

        done = cli("topics", "apply", "--file", "more.toml")

        assert (done.status, done.out) == (1, "")
        assert f"is planned with replication {brokers + 1}, and the cluster has {brokers} broker" in done.err
        assert existing(topics) == {}

    def test_what_the_broker_refuses_is_told_by_topic_and_the_rest_is_made(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        (tmp_path / "odd.toml").write_text(
            '[topics."good"]\n[topics."bad"]\nconfig = { "retention.mss" = 1 }\n'
            '[topics."ugly"]\nconfig = { "retention.ms" = "long" }\n'
        )
        topics("ugly")

        done = cli("topics", "apply", "--file", "odd.toml")

        assert done.status == 1
        assert done.out.count("FAILED") == 2
        assert f"tidegate: {topics.prefix}bad: " in done.err
        assert "retention.mss" in done.err
        assert f"tidegate: {topics.prefix}ugly: " in done.err
        assert set(existing(topics)) == {"good", "ugly"}


class TestReplay:
    def test_lines_are_published_as_they_are_to_the_partition_of_their_instrument(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed")
        ticks = lines(500, (f"S{i}" for i in range(20)))
        write_jsonl(tmp_path / "a.jsonl", ticks[:300])
        with gzip.open("b.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(tick) + "\n" for tick in ticks[300:])
        started_ms = time.time() * 1000

        done = cli("replay", "a.jsonl", "b.jsonl.gz", "--topic", topic, "--venue", "X", "--json")

        found = json.loads(done.out)
        assert done.status == 0, done.err
        assert {name: found[name] for name in ("lines_read", "published", "refused", "without_a_tick")} == {
            "lines_read": 500,
            "published": 500,
            "refused": 0,
            "without_a_tick": 0,
        }
        records = read_all(topics.bootstrap, topic)
        assert sorted(record.value() for record in records) == sorted(json.dumps(t).encode() for t in ticks)
        for record in records:
            symbol = json.loads(record.value())["symbol"]
            assert record.key() == f"X:{symbol}".encode()
            assert record.partition() == partition_for(record.key(), 4)
            # Not the event time: retention goes by it.
            assert record.timestamp()[1] >= started_ms - 1000
            assert record.headers() is None
        by_symbol: dict[bytes, list[int]] = {}
        for record in records:
            by_symbol.setdefault(record.key(), []).append(json.loads(record.value())["trade_id"])
        assert all(ids == sorted(ids) for ids in by_symbol.values())

    def test_the_header_of_a_csv_file_is_not_a_tick(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed", partitions=1)
        rows = [f"A,{T0_NS + i},,1.5,1,{i},buy," for i in range(3)]
        for name in ("a.csv", "b.csv"):
            (tmp_path / name).write_text("\n".join([COLUMNS, *rows]) + "\n")

        done = cli("replay", "a.csv", "b.csv", "--topic", topic)

        assert done.status == 0, done.err
        assert re.search(r"published +6\n", done.out)
        assert [record.value().decode() for record in read_all(topics.bootstrap, topic)] == rows * 2

    def test_standard_input_is_a_source(self, topics: TestTopics, tmp_path: Path) -> None:
        topic = topics("replayed")
        given = "".join(json.dumps(tick) + "\n" for tick in lines(100)).encode()

        done = tidegate(
            "replay",
            "-",
            "--topic",
            topic,
            "--broker",
            topics.bootstrap,
            "--json",
            cwd=tmp_path,
            input_bytes=given,
        )

        assert json.loads(done.stdout)["published"] == 100
        assert len(read_all(topics.bootstrap, topic)) == 100

    def test_a_line_without_a_tick_is_published_and_says_where_it_is_from(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed")
        path = write_jsonl(tmp_path / "a.jsonl", lines(2))
        path.write_text(path.read_text() + "\ngarbage\n")

        done = cli("replay", "a.jsonl", "--topic", topic, "--json")

        assert done.status == 0
        assert "a.jsonl:4: " in done.err
        found = json.loads(done.out)
        assert (found["published"], found["without_a_tick"]) == (3, 1)
        (garbage,) = (r for r in read_all(topics.bootstrap, topic) if r.value() == b"garbage")
        assert garbage.key() is None
        assert garbage.headers() == [(SOURCE_HEADER, b"a.jsonl:4")]

    def test_lines_and_records_that_are_too_long_are_refused_with_their_place_and_no_others(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed", max_message_bytes=10_000)
        ticks = lines(3_000)
        dice = random.Random(1)
        for i in (100, 101, 2_000):
            ticks[i]["junk"] = "".join(dice.choices(string.printable[:90], k=30_000))
        path = write_jsonl(tmp_path / "a.jsonl", ticks)
        path.write_text(path.read_text() + "x" * 1_200_000 + "\n")

        done = cli("replay", "a.jsonl", "--topic", topic, "--json")

        assert done.status == 1
        found = json.loads(done.out)
        assert (found["lines_read"], found["published"], found["refused"]) == (3_001, 2_997, 4)
        refused = {int(n) for n in re.findall(r"^refused a\.jsonl:(\d+): ", done.err, re.MULTILINE)}
        assert refused == {101, 102, 2_001, 3_001}
        kept = {json.loads(record.value())["trade_id"] for record in read_all(topics.bootstrap, topic)}
        assert kept == set(range(3_000)) - {100, 101, 2_000}

    def test_a_damaged_file_is_told_with_the_line_and_what_came_before_it_is_published(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed")
        dice = random.Random(1)
        text = "".join(json.dumps({**t, "junk": dice.random()}) + "\n" for t in lines(20_000))
        whole = gzip.compress(text.encode())
        (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])

        done = cli("replay", "cut.jsonl.gz", "--topic", topic, "--json")

        assert done.status == 1
        assert re.search(r"^tidegate: cut\.jsonl\.gz:\d+: the gzip data is damaged", done.err, re.MULTILINE)
        found = json.loads(done.out)
        assert 0 < found["published"] == found["lines_read"] < 20_000
        assert len(read_all(topics.bootstrap, topic)) == found["published"]

    def test_files_are_replayed_beside_each_other_at_a_multiple_of_their_pace(
        self, cli: Cli, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed", partitions=1)
        # Two seconds each, at the same time.
        write_jsonl(tmp_path / "a.jsonl", lines(21, "A", step_ns=10**8))
        write_jsonl(tmp_path / "b.jsonl", lines(21, "B", step_ns=10**8))

        done = cli("replay", "a.jsonl", "b.jsonl", "--topic", topic, "--speed", "4x", "--json")

        found = json.loads(done.out)
        assert found["published"] == 42
        assert found["seconds"] >= 0.5
        times = [json.loads(record.value())["ts_ns"] for record in read_all(topics.bootstrap, topic)]
        assert times == sorted(times)

    def test_an_interrupted_replay_says_exactly_what_is_published(
        self, topics: TestTopics, tmp_path: Path
    ) -> None:
        topic = topics("replayed")
        write_jsonl(tmp_path / "a.jsonl", lines(10_000, step_ns=10**8))
        process = started(topics, tmp_path, "replay", "a.jsonl", "--topic", topic, "--speed", "10x", "--json")
        until(lambda: read_all(topics.bootstrap, topic), 60, "records on the topic")

        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)

        found = json.loads(out)
        assert process.returncode == 130
        assert b"interrupted" in errors
        assert b"Traceback" not in errors
        assert found["interrupted"] is True
        assert 0 < found["published"] == found["lines_read"] < 10_000
        assert len(read_all(topics.bootstrap, topic)) == found["published"]

    def test_an_input_that_never_ends_can_be_interrupted(self, topics: TestTopics, tmp_path: Path) -> None:
        topic = topics("replayed")
        process = started(topics, tmp_path, "replay", "-", "--topic", topic, "--json")
        assert process.stdin is not None
        for tick in lines(10):
            process.stdin.write(json.dumps(tick).encode() + b"\n")
        process.stdin.flush()
        until(lambda: len(read_all(topics.bootstrap, topic)) == 10, 60, "ten records on the topic")

        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=60) == 130
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["published"] == 10
        process.communicate()

    def test_a_topic_that_is_not_there_is_told_and_not_made(self, cli: Cli, topics: TestTopics) -> None:
        Path("a.jsonl").write_text("{}\n")

        replay = cli("replay", "a.jsonl", "--topic", f"{topics.prefix}none")
        feed = cli("feed", "--topic", f"{topics.prefix}none")

        for done in (replay, feed):
            assert (done.status, done.out) == (1, "")
            assert f"lacks topic {topics.prefix}none" in done.err.splitlines()[0]
            assert "topics apply" in done.err
        assert existing(topics) == {}


class TestFeed:
    def test_it_publishes_at_its_rate_for_its_time_ticks_that_the_codec_reads(
        self, cli: Cli, topics: TestTopics
    ) -> None:
        topic = topics("fed")
        started_ns = time.time_ns()

        done = cli(
            "feed", "--topic", topic, "--rate", "400/s", "--seconds", "1.5", "--instruments", "5",
            "--duplicates", "0.1", "--json",
        )  # fmt: skip

        found = json.loads(done.out)
        assert done.status == 0, done.err
        assert abs(found["published"] - 600) <= 1
        assert found["seconds"] >= 1.5
        records = read_all(topics.bootstrap, topic)
        assert len(records) == found["published"]
        codec = get_codec("tidegate")
        trades = [codec.decode(record.value())[0] for record in records]
        for record, trade in zip(records, trades, strict=True):
            assert record.key() == f"SIM:{trade.symbol}".encode()
            assert record.partition() == partition_for(record.key(), 4)
            assert started_ns - 10**9 <= trade.ts_ns <= time.time_ns()
        ids = Counter((trade.symbol, trade.trade_id) for trade in trades)
        assert len({symbol for symbol, _ in ids}) == 5
        assert sum(ids.values()) - len(ids) == found["duplicates"] > 0

    def test_the_same_seed_gives_the_same_prices_and_new_ids(self, cli: Cli, topics: TestTopics) -> None:
        prices, first_ids = [], []
        for name in ("one", "two"):
            topic = topics(name, partitions=1)
            cli("feed", "--topic", topic, "--rate", "100", "--seconds", "1", "--seed", "5")
            ticks = [json.loads(record.value()) for record in read_all(topics.bootstrap, topic)]
            prices.append([(tick["symbol"], tick["price"], tick["size"]) for tick in ticks][:90])
            first_ids.append(ticks[0]["trade_id"])

        assert prices[0] == prices[1]
        assert len(prices[0]) == 90
        assert first_ids[1] > first_ids[0] + 100

    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_in_order(
        self, topics: TestTopics, tmp_path: Path, signum: signal.Signals
    ) -> None:
        topic = topics("fed")
        process = started(topics, tmp_path, "feed", "--topic", topic, "--rate", "1000/s", "--json")
        until(lambda: read_all(topics.bootstrap, topic), 60, "records on the topic")

        process.send_signal(signum)
        out, errors = process.communicate(timeout=60)

        assert (process.returncode, errors) == (0, b"")
        found = json.loads(out)
        assert found["published"] == len(read_all(topics.bootstrap, topic)) > 0

    def test_a_topic_of_another_feed_is_refused(
        self, cli: Cli, topics: TestTopics, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = topics("ticks.v1")
        monkeypatch.setenv("TIDEGATE_TICKS", json.dumps([{"topic": topic, "feed": "binance"}]))

        done = cli("feed", "--topic", topic)

        assert (done.status, done.out) == (1, "")
        assert "carries the feed binance" in done.err

    def test_ticks_come_in_a_steady_stream(self, cli: Cli, topics: TestTopics) -> None:
        topic = topics("fed", partitions=1)

        cli("feed", "--topic", topic, "--rate", "200", "--seconds", "2", "--disorder", "0")

        times = [json.loads(record.value())["ts_ns"] for record in read_all(topics.bootstrap, topic)]
        assert times == sorted(times)
        assert times[-1] - times[0] > 1_500_000_000
        assert max(later - earlier for earlier, later in pairwise(times)) < 1_000_000_000


def started(topics: TestTopics, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A command that goes on until it is told to end."""
    return subprocess.Popen(
        [sys.executable, "-m", "agents", *arguments, "--broker", topics.bootstrap],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=environment(),
    )


def test_a_broker_that_is_not_there_is_told_in_one_line_within_seconds(tmp_path: Path) -> None:
    commands = (
        ["topics", "plan"],
        ["topics", "apply"],
        ["feed", "--topic", "t"],
        ["replay", "-", "--topic", "t"],
    )
    with ThreadPoolExecutor(len(commands)) as pool:
        asked = [pool.submit(tidegate, *each, "--broker", "127.0.0.1:1", cwd=tmp_path) for each in commands]

    for future in asked:
        done = future.result()
        assert_one_clear_line(done, "broker 127.0.0.1:1 did not answer", "Connection refused", "--broker")
        assert done.stdout == b""
