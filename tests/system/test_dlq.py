"""``tidegate dlq`` on Apache Kafka, without a worker: what is on the topic, and what goes back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from schemas.dead_letter import HEADER, DeadLetter, Reason, encode_dead_letter
from schemas.replay import REPLAY_HEADER
from support.cli import tidegate
from support.inprocess import Cli, in_process
from support.kafka import TestTopics, wait_for_markers

TS = 1_723_161_600.0

Header = tuple[str, bytes | None]


@pytest.fixture
def cli(topics: TestTopics, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Commands with the settings of this test's topics."""
    monkeypatch.setenv("TIDEGATE_BROKER", topics.bootstrap)
    monkeypatch.setenv("TIDEGATE_TOPIC_PREFIX", topics.prefix)
    ticks = [{"topic": f"{topics.prefix}ticks.v1"}, {"topic": f"{topics.prefix}b.v1", "source": "archive"}]
    monkeypatch.setenv("TIDEGATE_TICKS", json.dumps(ticks))
    return in_process(monkeypatch, capsys)


Bury = Callable[..., str]


@pytest.fixture
def bury(topics: TestTopics) -> Bury:
    """Puts a dead letter on the topic; gives its place."""
    dlq = topics("ticks.dlq.v1")
    producer = Producer({"bootstrap.servers": topics.bootstrap})

    def put(
        value: bytes | None = b"{}",
        key: bytes | None = b"K",
        headers: tuple[Header, ...] = (),
        *,
        ours: bool = True,
        **changes: Any,
    ) -> str:
        fields = {"reason": Reason.late, "detail": "8 s behind", "topic": f"{topics.prefix}ticks.v1"}
        letter = DeadLetter(**{**fields, "partition": 1, "offset": 5, "ts": TS, **changes})  # type: ignore[arg-type]
        header = [(HEADER, encode_dead_letter(letter))] if ours else []
        places: list[str] = []
        producer.produce(
            dlq,
            value,
            key,
            min(letter.partition, 3),
            headers=[*headers, *header],
            on_delivery=lambda error, message: places.append(
                error or f"{dlq}[{message.partition()}]@{message.offset()}"
            ),
        )
        assert producer.flush(10) == 0
        return places[0]

    return put


def records(topics: TestTopics, name: str) -> list[Message]:
    """All records of a topic, partition by partition."""
    topic = topics.prefix + name
    consumer = Consumer(
        {"bootstrap.servers": topics.bootstrap, "group.id": topic, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    found, ended = [], 0
    try:
        while ended < 4:
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


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


class TestList:
    def test_the_newest_come_last_and_say_what_they_were(self, cli: Cli, bury: Bury) -> None:
        second = bury(ts=TS + 2, partition=0, reason=Reason.future, source="a.csv:7")
        first = bury(ts=TS, partition=3, index=2, replayed="ticks[3]@99")
        bury(ts=TS - 5)

        table = cli("dlq", "list", "--limit", "2")
        found = rows(cli("dlq", "list", "--limit", "2", "--json").out)

        assert table.status == 0
        assert [line.split()[0] for line in table.out.splitlines()] == ["where", first, second]
        assert "a.csv:7" in table.out
        assert table.err == "the newest 2 of 3: late 2, future 1; 1 came back\n"
        assert [row["where"] for row in found] == [first, second]
        assert [(row["reason"], row["offset"], row["index"]) for row in found] == [
            ("late", 5, 2),
            ("future", 5, 0),
        ]

    def test_conditions_choose_and_are_counted(self, cli: Cli, bury: Bury) -> None:
        for number in range(6):
            bury(ts=TS + number, partition=number % 2, reason=(Reason.late, Reason.future)[number > 3])
        bury(topic="elsewhere", ts=TS + 9)

        def count(*conditions: str) -> Any:
            return json.loads(cli("dlq", "list", "--count", "--json", *conditions).out)

        assert count()["reasons"] == {"late": 5, "future": 2}
        assert count("--reason", "late")["reasons"] == {"late": 5}
        assert count("--reason", "late", "--reason", "future")["total"] == 7
        assert count("--partition", "0")["total"] == 3
        assert count("--topic", "elsewhere")["total"] == 1
        assert count("--since", "2024-08-09T00:00:03Z", "--until", "2024-08-09T00:00:05Z")["total"] == 2
        assert count("--since", "2100-01-01")["total"] == 0
        assert "late" in cli("dlq", "list", "--count").out

    def test_all_of_many_are_listed_and_as_json_in_the_order_of_the_topic(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        bury()
        letter = DeadLetter(reason=Reason.late, detail="", topic="t", partition=1, offset=5, ts=TS)
        producer = Producer({"bootstrap.servers": topics.bootstrap, "linger.ms": 5})
        for number in range(3000):
            header = [(HEADER, encode_dead_letter(letter))]
            producer.produce(f"{topics.prefix}ticks.dlq.v1", b"x", partition=number % 4, headers=header)
        assert producer.flush(20) == 0

        found = rows(cli("dlq", "list", "--all", "--json").out)

        assert len(found) == 3001
        assert len({row["where"] for row in found}) == 3001
        assert len(cli("dlq", "list", "--all").out.splitlines()) == 3002
        assert len(cli("dlq", "list").out.splitlines()) == 51

    def test_what_others_put_there_is_shown_as_such(self, cli: Cli, bury: Bury) -> None:
        bury(ours=False, value=b"hello", key=None)
        bury(ours=False, headers=((HEADER, b"nonsense"),), value=None)

        table = cli("dlq", "list")

        assert table.status == 0
        assert table.out.count("(not Tidegate's)") == 2
        assert "its header tidegate cannot be read" in table.out
        assert [row["reason"] for row in rows(cli("dlq", "list", "--json").out)] == [None, None]
        assert json.loads(cli("dlq", "list", "--count", "--json").out)["not_tidegates"] == 2
        assert cli("dlq", "list", "--reason", "late").err == "no dead letters match\n"

    def test_an_empty_topic_and_a_missing_one(self, cli: Cli, topics: TestTopics) -> None:
        missing = cli("dlq", "list")
        topics("ticks.dlq.v1")
        empty = cli("dlq", "list")

        assert (missing.status, missing.out) == (1, "")
        assert f"lacks topic {topics.prefix}ticks.dlq.v1" in missing.err
        assert (empty.status, empty.out, empty.err) == (0, "", "no dead letters match\n")
        assert "has no partition 9" in cli("dlq", "list", "--partition", "9").err

    def test_what_a_transaction_took_back_is_not_there(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        dlq, _ = f"{topics.prefix}ticks.dlq.v1", bury()
        producer = Producer({"bootstrap.servers": topics.bootstrap, "transactional.id": topics.prefix})
        producer.init_transactions(10)
        for end in (producer.abort_transaction, producer.commit_transaction):
            producer.begin_transaction()
            producer.produce(dlq, b"x", partition=1)
            producer.flush(10)
            end(10)
        wait_for_markers(topics.bootstrap, dlq, 1)

        assert [row["where"] for row in rows(cli("dlq", "list", "--json").out)] == [
            f"{dlq}[1]@0",
            f"{dlq}[1]@3",
        ]
        taken_back, mark, last = (cli("dlq", "show", f"1@{offset}") for offset in (1, 2, 4))
        assert {done.status for done in (taken_back, mark, last)} == {1}
        assert f"{dlq}[1]@1 is no record: the next is {dlq}[1]@3" in taken_back.err
        assert f"{dlq}[1]@4 is no record: none after it" in last.err


class TestShow:
    @pytest.mark.parametrize("value", [b"\x00\xff\x1b[2J\r\n", None])
    def test_raw_is_every_byte_and_nothing_else(
        self, topics: TestTopics, bury: Bury, value: bytes | None, tmp_path: Path
    ) -> None:
        environment = {"TIDEGATE_BROKER": topics.bootstrap, "TIDEGATE_TOPIC_PREFIX": topics.prefix}

        done = tidegate("dlq", "show", bury(value), "--raw", cwd=tmp_path, **environment)

        assert (done.returncode, done.stdout) == (0, value or b"")
        assert (b"tombstone" in done.stderr) is (value is None)

    def test_a_place_that_is_not_there_names_what_is(self, cli: Cli, topics: TestTopics, bury: Bury) -> None:
        dlq = f"{topics.prefix}ticks.dlq.v1"
        for _ in range(3):
            bury()

        assert cli("dlq", "show", f"{dlq}[1]@2").out.startswith(f"where       {dlq}[1]@2\n")
        assert f"{dlq}[1]@3 is not there: the partition holds offsets 0 to 2" in cli("dlq", "show", "1@3").err
        assert f"{dlq}[0]@0 is not there: the partition is empty" in cli("dlq", "show", "0@0").err
        beyond = cli("dlq", "show", "7@0")
        assert (beyond.status, beyond.out) == (1, "")
        assert f"{dlq} has no partition 7\n  hint: it has 0 to 3" in beyond.err


class TestReplay:
    def test_the_same_bytes_go_back_to_the_same_partition_with_the_headers_they_had(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        ticks = topics("ticks.v1")
        topics("bars.v1")
        own: tuple[Header, ...] = (("trace", b"1"), ("tidegate", b"its own"), ("none", None))
        bury(b"\x00\xff", b"\xfe", own, partition=2, offset=7, index=1)
        bury(None, None, partition=0, reason=Reason.empty, offset=8)
        bury(b"bar", b"A|1m|0", partition=3, reason=Reason.conflict, topic=f"{topics.prefix}bars.v1")

        done = cli("dlq", "replay", "--all", "--json")

        assert done.status == 0, done.err
        account = json.loads(done.out)
        assert {name: account[name] for name in ("selected", "replayed", "repeated", "refused")} == {
            "selected": 3,
            "replayed": 3,
            "repeated": 0,
            "refused": 0,
        }
        empty, late = records(topics, "ticks.v1")
        (bar,) = records(topics, "bars.v1")
        assert (late.partition(), late.key(), late.value()) == (2, b"\xfe", b"\x00\xff")
        assert (empty.partition(), empty.key(), empty.value()) == (0, None, None)
        assert (bar.partition(), bar.key(), bar.value()) == (3, b"A|1m|0", b"bar")
        assert late.headers()[:-1] == list(own)
        name, value = late.headers()[-1]
        assert (name, json.loads(value)) == (
            REPLAY_HEADER,
            {"topic": ticks, "partition": 2, "offset": 7, "index": 1},
        )
        assert "index" not in json.loads(dict(empty.headers())[REPLAY_HEADER])
        assert "1 were late" in done.err

    def test_only_what_was_selected_is_replayed_and_a_dry_run_replays_nothing(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        topics("ticks.v1")
        place = bury(b"one", offset=1)
        bury(b"two", offset=2, reason=Reason.future)
        bury(b"three", offset=3)

        dry = cli("dlq", "replay", "--reason", "late", "--dry-run")
        dry_json = json.loads(cli("dlq", "replay", "--all", "--dry-run", "--json").out)
        assert records(topics, "ticks.v1") == []
        chosen = cli("dlq", "replay", "--reason", "future")
        named = cli("dlq", "replay", place, "1@2", place)

        assert (dry.status, chosen.status, named.status) == (0, 0, 0)
        assert f"{topics.prefix}ticks.v1[1]" in dry.out
        assert "would replay  2" in dry.out
        assert [row["where"][-5:] for row in dry_json["dead_letters"]] == ["[1]@0", "[1]@1", "[1]@2"]
        assert dry_json["would_replay"] == 3
        assert [record.value() for record in records(topics, "ticks.v1")] == [b"two", b"one", b"three"]

    def test_a_tick_that_came_back_is_replayed_once(self, cli: Cli, topics: TestTopics, bury: Bury) -> None:
        topics("ticks.v1")
        bury(offset=1)
        bury(offset=1, replayed="ticks[1]@7")
        bury(offset=1, index=1)

        account = json.loads(cli("dlq", "replay", "--all", "--json").out)

        assert (account["selected"], account["replayed"], account["repeated"]) == (3, 2, 1)
        assert len(records(topics, "ticks.v1")) == 2

    def test_to_another_topic_or_the_one_whose_source_has_another_name(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        topics("b.v1")
        topics("c.v1", partitions=2)
        bury(b"one", topic="archive")
        bury(b"two", partition=3)

        assert cli("dlq", "replay", "--topic", "archive").status == 0
        there = cli("dlq", "replay", "--all", "--to", f"{topics.prefix}c.v1")

        assert [record.value() for record in records(topics, "b.v1")] == [b"one"]
        assert there.status == 1
        assert f"{topics.prefix}c.v1 has no partition 3, on which the record was" in there.err
        assert (
            json.loads(cli("dlq", "replay", "--all", "--to", f"{topics.prefix}b.v1", "--json").out)[
                "replayed"
            ]
            == 2
        )

    def test_what_cannot_be_replayed_is_told_and_the_rest_is_replayed(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        topics("ticks.v1", max_message_bytes=2000)
        place = bury(ours=False)
        bury(topic="nowhere")
        bury(topic=f"{topics.prefix}bars.state.v1")
        bury(os.urandom(3000), offset=8)
        bury(b"good", offset=9)

        done = cli("dlq", "replay", "--all")

        assert done.status == 1
        assert f"not replayed: {place}: not Tidegate's" in done.err
        assert "lacks topic nowhere" in done.err
        assert f"{topics.prefix}bars.state.v1 is Tidegate's own topic" in done.err
        assert "by the broker" in done.err
        assert [record.value() for record in records(topics, "ticks.v1")] == [b"good"]
        assert "Traceback" not in done.err

    def test_nothing_is_replayed_where_a_place_or_the_target_is_not_there(
        self, cli: Cli, topics: TestTopics, bury: Bury
    ) -> None:
        topics("ticks.v1")
        place = bury()

        wrong = cli("dlq", "replay", place, "1@99")
        nowhere = cli("dlq", "replay", "--all", "--to", "nowhere")
        none = cli("dlq", "replay", "--reason", "empty")

        assert (wrong.status, nowhere.status, none.status) == (1, 1, 0)
        assert "1]@99 is not there" in wrong.err
        assert "nothing was replayed: " in nowhere.err
        assert "lacks topic nowhere" in nowhere.err
        assert "no dead letters match" in none.err
        assert records(topics, "ticks.v1") == []


@pytest.mark.parametrize("arguments", ["list", "show 0@0", "replay --all", "replay 0@0"])
def test_a_broker_that_is_not_there_is_told(cli: Cli, arguments: str) -> None:
    done = cli("dlq", *arguments.split(), "--broker", "127.0.0.1:1")

    assert (done.status, done.out) == (1, "")
    assert "broker 127.0.0.1:1 did not answer" in done.err
