from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from streams.topicplan import (
    ActualTopic,
    Create,
    Differs,
    PlannedTopic,
    SetConfig,
    check_replication,
    compare,
    default_file,
    parse_plan,
    read_plan,
    uneven,
)
from streams.topics import Topics

PLAN = """
[defaults]
partitions = 4
replication = 3

[topics."ticks.v1"]
partitions = 12
config = { "retention.ms" = 604800000, "cleanup.policy" = ["compact", "delete"], "preallocate" = false }

[topics."rate.v1"]
replication = 1
"""


def as_it_should_be(plan: list[PlannedTopic]) -> dict[str, ActualTopic]:
    return {
        topic.name: ActualTopic(topic.partitions, topic.replication, dict(topic.config)) for topic in plan
    }


def test_a_topic_has_its_own_counts_or_the_defaults_and_settings_as_kafka_writes_them() -> None:
    ticks, rate = parse_plan(PLAN, "md.")

    config = {"retention.ms": "604800000", "cleanup.policy": "compact,delete", "preallocate": "false"}
    assert ticks == PlannedTopic("md.ticks.v1", 12, 3, config)
    assert rate == PlannedTopic("md.rate.v1", 4, 1, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[topics", "at end of document"),
        ("", "names no topic"),
        ("[topics]", "names no topic"),
        ('[topic."a"]', "topic is not known"),
        ('[topics."ticks.v1"]\npartition = 4', '[topics."ticks.v1"] partition is not known'),
        ("[topics.ticks.v1]\npartitions = 4", '[topics."ticks"] v1 is not known'),
        ('[topics."a"]\npartitions = 0', '[topics."a"] partitions: Input should be greater than'),
        ('[topics."a"]\npartitions = "4"', '[topics."a"] partitions: Input should be a valid integer'),
        ('[topics."a"]\npartitions = true', '[topics."a"] partitions: Input should be a valid integer'),
        ('[topics."a"]\nreplication = 1.5', '[topics."a"] replication'),
        ('[topics."a"]\nconfig = 3', '[topics."a"] config'),
        ('[topics."a"]\nconfig = { "x.y" = { z = 1 } }', '[topics."a"] config.x.y should be a string'),
        ("[defaults]\nreplicas = 3", "defaults.replicas is not known"),
        ("[defaults]\npartitions = -1", "defaults.partitions: Input should be greater than"),
        ('[topics."a b"]', "'md.a b' cannot name a topic"),
        ('[topics.""]', "'md.' cannot name a topic"),
        ('[topics."ü"]', "'md.ü' cannot name a topic"),
        ("topics = 3", "names no topic"),
        ('[topics."md.ticks.v1"]', "would become 'md.md.ticks.v1'"),
        (f'[topics."{"a" * 250}"]', "up to 249"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_the_file_and_the_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_plan(text, "md.", "plan.toml")

    assert str(refused.value).startswith("plan.toml: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    for name in ("binary", "absent", "."):
        with pytest.raises(ConfigError, match=r"binary|absent|Is a directory"):
            read_plan(tmp_path / name, "md.")


def test_the_plan_that_comes_with_tidegate_names_all_of_its_topics_with_equal_counts() -> None:
    plan = read_plan(default_file(), "md.")
    topics = Topics("md.")
    own = {topics.bars, topics.dead_letters, topics.state, topics.feedback, topics.rate}

    operators = {topics.control, topics.audit}
    assert {topic.name for topic in plan} == own | operators | {"md.ticks.v1"}
    assert len({topic.partitions for topic in plan if topic.name not in operators}) == 1
    assert {topic.partitions for topic in plan if topic.name in operators} == {1}
    policies = {topic.name: topic.config["cleanup.policy"] for topic in plan}
    assert {name for name, policy in policies.items() if policy == "compact"} == {
        *(topics.bars, topics.state, topics.control)
    }


def test_nothing_changes_where_all_is_as_planned_whatever_else_the_broker_has() -> None:
    plan = parse_plan(PLAN, "md.")
    actual = as_it_should_be(plan)
    actual["other"] = ActualTopic(1, 1, {})
    ticks = actual["md.ticks.v1"]
    actual["md.ticks.v1"] = replace(ticks, config={**ticks.config, "flush.ms": "7"})

    assert compare(plan, actual) == []


def test_a_missing_topic_is_created() -> None:
    plan = parse_plan(PLAN, "md.")
    actual = as_it_should_be(plan)
    del actual["md.rate.v1"]

    assert compare(plan, actual) == [Create(plan[1])]


def test_only_the_settings_that_differ_are_set() -> None:
    plan = parse_plan(PLAN, "md.")
    actual = as_it_should_be(plan)
    config = {**actual["md.ticks.v1"].config, "retention.ms": "1000", "preallocate": None}
    actual["md.ticks.v1"] = replace(actual["md.ticks.v1"], config=config)

    assert compare(plan, actual) == [
        SetConfig("md.ticks.v1", {"retention.ms": ("1000", "604800000"), "preallocate": (None, "false")})
    ]


@pytest.mark.parametrize(
    ("planned", "actual", "is_same"),
    [
        ("0.0001", "1.0E-4", True),
        ("0.1", "0.10", True),
        ("compact,delete", "delete,compact", True),
        ("compact,delete", "delete, compact", True),
        ("compact", "delete", False),
        ("1", "10", False),
        ("zstd", "zstd", True),
        ("true", "false", False),
    ],
)
def test_settings_are_compared_by_what_they_mean(planned: str, actual: str, is_same: bool) -> None:
    plan = [PlannedTopic("t", 1, 1, {"x": planned})]

    assert (compare(plan, {"t": ActualTopic(1, 1, {"x": actual})}) == []) is is_same


def test_counts_that_differ_are_told_and_never_changed() -> None:
    plan = parse_plan(PLAN, "md.")
    actual = as_it_should_be(plan)
    actual["md.ticks.v1"] = replace(actual["md.ticks.v1"], partitions=16, replication=1)

    partitions, replication = compare(plan, actual)

    assert partitions == Differs("md.ticks.v1", "partitions", 16, 12)
    assert replication == Differs("md.ticks.v1", "replication", 1, 3)
    assert isinstance(partitions, Differs)
    assert "Kafka takes none away" in partitions.advice
    assert "part instruments from their past" in replace(partitions, actual=8).advice


def test_more_copies_than_brokers_are_refused_for_new_topics_only() -> None:
    plan = parse_plan(PLAN, "md.")

    with pytest.raises(
        ConfigError, match=r"md\.ticks\.v1 is planned with replication 3, and the cluster has 1 broker"
    ):
        check_replication(compare(plan, {}), 1)
    check_replication(compare(plan, {}), 3)
    there = {name: replace(topic, replication=1) for name, topic in as_it_should_be(plan).items()}
    check_replication(compare(plan, there), 1)


FOUR = {"md.bars.v1": 4, "md.feedback.v1": 4, "md.bars.state.v1": 4, "md.rate.v1": 4, "md.ticks.dlq.v1": 4}


@pytest.mark.parametrize(
    ("planned", "actual", "counts"),
    [
        ({**FOUR, "md.ticks.v1": 4}, {}, {}),
        ({**FOUR, "md.ticks.v1": 4}, {"binance": 4}, {}),
        # What the broker has counts, not what was planned for it.
        (FOUR, {"binance": 12}, {**FOUR, "binance": 12}),
        (FOUR, dict.fromkeys([*FOUR, "binance"], 12), {}),
        # Nobody joins topics that are neither Tidegate's own nor configured.
        ({**FOUR, "md.other": 1}, {"unrelated": 7}, {}),
    ],
)
def test_unequal_partition_counts_are_found_before_topics_are_created(
    planned: Mapping[str, int], actual: Mapping[str, int], counts: Mapping[str, int]
) -> None:
    plan = [PlannedTopic(name, count, 1) for name, count in planned.items()]
    there = {name: ActualTopic(count, 1) for name, count in actual.items()}

    assert uneven(plan, there, Topics("md."), ["binance", "md.ticks.v1"]) == counts
