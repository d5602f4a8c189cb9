"""What is read off the last records of the feedback and rate topics, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.feedback import Feedback, Level, decode_feedback, encode_feedback
from schemas.rate import RateAdjustment, decode_rate, encode_rate
from streams.cli import tail
from streams.cli.status import as_object
from streams.cli.status_view import lasted, print_status
from streams.cli.times import iso_ms
from streams.groups import Group, GroupMember
from streams.settings import Settings
from streams.status import Coordinator, Hold, Status, TickPartition, _note, asked, coordinators, held

NOW = 1723161600.0
WORKER = GroupMember("faust-0.15.3-aaaa-123456", "10.0.0.7", frozenset({("md.ticks.v1", 0)}))


def feedback(**changes: Any) -> Feedback:
    fields: dict[str, Any] = {"coordinator_id": "db:1", "queue_size": 41, "capacity": 48, "level": Level.hard}
    return Feedback(**{**fields, "ts": NOW - 2, "partition": 0, "epoch": 1, "drain_rate": 1234.5, **changes})


def rate(scale: float, ts: float, **changes: Any) -> RateAdjustment:
    reason = Level.ok if scale == 1 else Level.hard
    fields = {"provider": "tidegate", "scale": scale, "reason": reason, "ts": ts, "partition": 0}
    return RateAdjustment(**{**fields, "coordinator_id": "db:1", **changes})


class TestHeld:
    def test_the_last_decision_counts_and_since_is_that_of_the_first_of_the_series(self) -> None:
        decided = [rate(0, 1.0), rate(1, 2.0), rate(0.5, 3.0), rate(0, 4.0, partition=1), rate(0, 5.0)]

        assert held(decided, 0) == Hold(0.0, Level.hard, 3.0, "db:1", 5.0)
        assert held(decided, 1) == Hold(0.0, Level.hard, 4.0, "db:1", 4.0)
        assert held(decided, 2) is None

    def test_what_the_controller_says_of_since_counts_more(self) -> None:
        assert held([rate(0.5, 3.0, since=0.25), rate(0, 5.0, since=0.5)], 0) == Hold(
            0.0, Level.hard, 0.5, "db:1", 5.0
        )

    def test_an_open_partition_is_not_held_since_anything(self) -> None:
        found = held([rate(0, 1.0), rate(1, 2.0, since=1.0)], 0)
        assert found is not None
        assert (found.scale, found.since) == (1.0, None)

    def test_a_decision_for_all_partitions_is_one_for_each(self) -> None:
        found = held([rate(0.5, 1.0, partition=None)], 3)
        assert found is not None
        assert found.scale == 0.5


@pytest.mark.parametrize(
    ("place", "scale", "asked", "settled", "said"),
    [
        (0, 0.0, True, True, ""),
        (0, 0.0, False, False, ""),
        (0, 0.0, False, True, "no live store worker asks for this"),
        (0, 1.0, False, True, ""),
        (1, 0.0, True, True, "no worker owns it"),
    ],
)
def test_what_may_not_be_as_it_was_decided_is_noted(
    place: int, scale: float, asked: bool, settled: bool, said: str
) -> None:
    group, hold = Group("g", (WORKER,)), Hold(scale, Level.hard, 1.0, "db:1", 1.0)
    assert _note(group, ("md.ticks.v1", place), hold, asked=asked, settled=settled) == said
    moving = Group("g", (WORKER,), rebalancing=True)
    assert "rebalancing" in _note(moving, ("md.ticks.v1", place), hold, asked=asked, settled=settled)


def test_who_asks_for_less_is_a_live_store_or_the_bars_worker_that_sees_its_lag() -> None:
    by_store, by_lag = (Hold(0.0, Level.hard, 1.0, by, 1.0) for by in ("db:1", "lag of tidegate-store"))
    assert asked([feedback()], 0, by_store, "tidegate-store")
    assert not asked([feedback(level=Level.ok), feedback(partition=1)], 0, by_store, "tidegate-store")
    assert asked([], 0, by_lag, "tidegate-store"), "it speaks on no topic"


class TestCoordinators:
    def test_each_has_its_last_word_and_the_partitions_it_speaks_of_at_its_last_heartbeat(self) -> None:
        words = [
            feedback(partition=0, ts=NOW - 5.0, level=Level.ok),
            feedback(partition=0, ts=NOW - 2.001),
            feedback(partition=1, ts=NOW - 2.0, queue_size=40),
            feedback(partition=2, ts=NOW - 4.0, level=Level.ok),  # taken from it two heartbeats ago
            feedback(partition=2, ts=NOW - 1.0, coordinator_id="db:0"),
        ]
        first, second = coordinators(words, NOW, Settings())

        assert (first.said.coordinator_id, first.partitions, first.age_s) == ("db:0", (2,), 1.0)
        assert (second.said.coordinator_id, second.partitions, second.age_s) == ("db:1", (0, 1), 2.0)
        assert second.said.queue_size == 40

    def test_one_that_was_started_anew_counts_from_then_on(self) -> None:
        words = [feedback(epoch=2, ts=NOW - 3, level=Level.ok), feedback(epoch=1, ts=NOW - 2)]
        assert [one.said.level for one in coordinators(words, NOW, Settings())] == [Level.ok]

    def test_a_clock_that_is_ahead_gives_no_negative_age(self) -> None:
        assert [one.age_s for one in coordinators([feedback(ts=NOW + 9)], NOW, Settings())] == [0.0]


def status(**changes: Any) -> Status:
    hold = Hold(0.0, Level.hard, NOW - 200, "db:1", NOW - 100)
    fields: dict[str, Any] = {
        "broker": "kafka:9092",
        "at": NOW,
        "bars": Group("tidegate-bars", (WORKER,)),
        "store": Group("tidegate-store"),
        "ticks": [
            TickPartition("md.ticks.v1", 0, 12_345, WORKER, hold),
            TickPartition("md.ticks.v1", 1, 0, None, None, "no worker owns it"),
        ],
        "coordinators": [Coordinator((0, 1), feedback(), 0.25)],
        "bars_lag": {0: 7, 1: 1000},
        "problems": ["something is wrong"],
    }
    return Status(**{**fields, **changes})


def test_people_see_what_is_held_since_when_why_by_whom_and_who_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_status(status())

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [
        "kafka:9092 at 2024-08-09T00:00:00.000Z",
        "group tidegate-bars: 1 member, 12,345 ticks behind",
        "group tidegate-store: no members, 1,007 bars behind",
    ]
    assert [line.split() for line in lines[4:7]] == [
        ["ticks", "lag", "scale", "held", "since", "level", "by", "worker", "note"],
        [
            *("md.ticks.v1[0]", "12,345", "0", "2024-08-08T23:56:40.000Z", "(3", "m", "20", "s)", "hard"),
            *("db:1", "10.0.0.7/123456"),
        ],
        [*("md.ticks.v1[1]", "0", "1", "-", "-", "-", "-"), *("no", "worker", "owns", "it")],
    ]
    assert lines[9].split() == ["db:1", "0,", "1", "hard", "41/48", "1,234", "0", "0.2", "s"]
    assert lines[-1] == "something is wrong"


def test_names_from_the_topics_are_no_commands_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "[red]\x1b[2J"
    hold = Hold(0.5, Level.soft, 1e300, odd, NOW)
    print_status(
        status(
            ticks=[TickPartition("t", 0, 0, None, hold)],
            coordinators=[Coordinator((0,), feedback(coordinator_id=odd), 1e9)],
        )
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("[red]\\x1b[2J") == 2
    assert "1e+300" in out


def test_machines_get_the_same() -> None:
    found = json.loads(json.dumps(as_object(status())))

    assert found["ticks"][0] == {
        "topic": "md.ticks.v1",
        "partition": 0,
        "lag": 12345,
        "scale": 0.0,
        "since": NOW - 200,
        "reason": "hard",
        "coordinator_id": "db:1",
        "owner": WORKER.id,
        "note": None,
    }
    assert (found["ticks"][1]["scale"], found["ticks"][1]["owner"]) == (1.0, None)
    assert found["coordinators"][0]["drain_rate"] == 1234.5
    assert found["groups"]["bars"]["members"] == [{"id": WORKER.id, "host": "10.0.0.7"}]
    assert (found["groups"]["store"]["lag"], found["groups"]["store"]["lags"]) == (1007, {"0": 7, "1": 1000})
    assert found["problems"] == ["something is wrong"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (59.4, "59 s"),
        (200, "3 m 20 s"),
        (18_605, "5 h 10 m"),
        (183_600, "2 d 3 h"),
    ],
)
def test_a_length_of_time(seconds: float, said: str) -> None:
    assert lasted(seconds) == said


@pytest.mark.parametrize("seconds", [0, -1, 1e300, -1e300, float(2**63)])
def test_any_number_is_a_time_or_itself(seconds: float) -> None:
    assert iso_ms(seconds)


class TestTailLines:
    def test_feedback(self) -> None:
        assert tail.feedback_line(feedback(queue_size=1041, capacity=2000)) == (
            "2024-08-08T23:59:58.000Z  partition 0  hard  queue 1,041/2,000  drain 1,234/s  by db:1"
        )
        assert "drain -  asks for 0.7  by" in tail.feedback_line(feedback(drain_rate=None, scale=0.7))
        assert "drain -  by a\\x1b[2J" in tail.feedback_line(
            feedback(drain_rate=None, coordinator_id="a\x1b[2J")
        )

    def test_rate(self) -> None:
        assert tail.rate_line(rate(0, NOW, since=NOW - 1)) == (
            "2024-08-09T00:00:00.000Z  partition 0  paused  scale 0     reason hard  "
            "since 2024-08-08T23:59:59.000Z  by db:1  provider tidegate"
        )
        line = tail.rate_line(rate(0.123456, 1e300, partition=None, coordinator_id=None))
        assert line == "1e+300  all partitions  slowed  scale 0.1235  reason hard  by -  provider tidegate"

    def test_json_is_what_is_on_the_topic(self) -> None:
        assert decode_feedback(tail._JSON["feedback"](feedback()).encode()) == feedback()
        assert decode_rate(tail._JSON["rate"](rate(0, NOW)).encode()) == rate(0, NOW)
        assert encode_feedback(feedback()).decode() == tail._JSON["feedback"](feedback())
        assert json.loads(encode_rate(rate(1, NOW)))["since"] is None
