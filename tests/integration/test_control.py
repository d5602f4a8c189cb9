"""Operators pause, resume and reload workers on Apache Kafka."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from market_data_core.telemetry import AuditEnvelope

from support.cli import assert_one_clear_line, tidegate
from support.inprocess import in_process
from support.kafka import TestTopics
from support.ops_site import OpsSite
from support.wait import until

pytestmark = [pytest.mark.kafka, pytest.mark.end_to_end, pytest.mark.covers("control")]


@pytest.fixture
def site(topics: TestTopics, tmp_path: Path) -> OpsSite:
    """With the topics of operators, on DuckDB."""
    made = OpsSite(topics, f"duckdb:{tmp_path / 'bars.duckdb'}", tmp_path)
    topics("control.v1", 1, cleanup_policy="compact")
    topics("control.audit.v1", 1)
    made.config()
    return made


Control = Callable[..., dict[str, Any]]


@pytest.fixture
def control(site: OpsSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Control:
    """``tidegate control ARGUMENTS --json``, where the site's settings are; its answer."""
    monkeypatch.chdir(site.folder)
    run = in_process(monkeypatch, capsys)

    def ask(*arguments: str, status: int = 0) -> dict[str, Any]:
        done = run("control", *arguments, "--json")
        assert done.status == status, done.err + done.out
        found: dict[str, Any] = json.loads(done.out)
        return found

    return ask


def test_a_paused_role_stays_paused_through_a_restart_until_it_is_resumed(
    site: OpsSite, control: Control
) -> None:
    with site.worker("one") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready and probe.part("consumer")["bars.assigned"] == "4", 60, "it is ready")
        asked = control("pause", "bars")
        [answer] = asked["answers"]
        assert asked["silent"] == 0
        assert answer["result"] == {"status": "ok", "detail": "paused here: 0, 1, 2, 3 of 4 partitions"}
        assert AuditEnvelope.model_validate(answer).actor == asked["action"]["actor"]

        site.tick(0)
        site.send("control.v1", b"garbage", key=b"k")
        until(lambda: probe.metrics()["tidegate_partition_lag", site.ticks, "0"] == 1, 20, "the tick waits")
        found = probe.metrics()
        assert found["tidegate_ticks_total",] == 0
        assert found["tidegate_operator_paused", "bars", "0"] == 1
        assert found["tidegate_operator_paused", "store", "0"] == 0
        assert found["tidegate_control_actions_total", "bars", "pause", "ok"] == 1
        assert found["pipeline_rate_scale_factor", site.group] == 0
        until(lambda: probe.metrics()["tidegate_control_unreadable_total",] == 1, 20, "garbage is counted")
        assert len(worker.events("control.unreadable")) == 1
        assert probe.ready, "paused is ready"
        assert probe.part("consumer")["bars.paused_by"] == asked["action"]["actor"]

        shown = json.loads(tidegate("status", "--json", cwd=site.folder).stdout)
        assert [(pause["role"], pause["partition"]) for pause in shown["operator"]] == [("bars", None)]
        assert {one["coordinator_id"] for one in shown["ticks"]} == {f"operator {answer['actor']}"}
        assert {one["note"] for one in shown["ticks"]} == {None}
        parts = {part["name"]: part for part in shown["components"]}
        assert parts["consumer"]["details"]["bars.paused"] == "0,1,2,3"
        assert (parts["broker"]["state"], parts["store"]["state"]) == ("healthy", "healthy")
        text = tidegate("status", cwd=site.folder).stdout.decode()
        assert f"bars: paused by operator {answer['actor']} since " in text
        assert worker.stop() == 0

    with site.worker("two") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready and probe.part("consumer")["bars.paused"] == "0,1,2,3", 60, "it is paused")
        assert probe.metrics()["tidegate_ticks_total",] == 0
        assert probe.part("consumer")["bars.lag"] == "1"

        assert len(control("resume", "bars", "--partition", "0")["answers"]) == 1
        until(lambda: probe.metrics()["tidegate_ticks_total",] == 1, 20, "partition 0 goes on")
        assert probe.part("consumer")["bars.paused"] == "1,2,3"
        control("resume", "bars")
        until(lambda: probe.part("consumer")["bars.paused"] == "", 20, "all go on")
        assert worker.stop() == 0
    log = tidegate("control", "log", cwd=site.folder).stdout.decode().splitlines()
    assert [line.split()[2] for line in log[1:]] == ["pause", "resume", "resume"]
    assert [line.split()[3] for line in log[1:]] == ["bars", "bars[0]", "bars"]


def test_a_paused_store_takes_no_bars_and_a_store_that_asks_for_less_is_heard_beside_an_operator(
    site: OpsSite, control: Control
) -> None:
    with site.worker() as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready and probe.part("consumer")["store.assigned"] == "4", 60, "it is ready")
        control("pause", "store", "--partition", "0")
        for second in (0, 3, 6):
            site.tick(second, "A", 0)
            site.tick(second, "B", 1)
        until(lambda: probe.metrics()["tidegate_store_bars_written_total",] == 2, 30, "those of partition 1")
        until(lambda: probe.metrics()["tidegate_bars_published_total",] == 4, 30, "all are published")
        until(lambda: probe.metrics()["tidegate_partition_lag", site.bars, "0"] >= 2, 20, "they wait")
        assert probe.metrics()["tidegate_store_bars_written_total",] == 2

        def held(partition: int) -> bool:
            site.say("hard", 2)
            return str(partition) in probe.part("consumer")["bars.paused"].split(",")

        until(lambda: held(2), 20, "the store's word holds")
        control("resume", "bars", "--partition", "2")
        assert held(2), "an operator's resume ends an operator's pause only"
        control("resume", "store")
        until(lambda: probe.metrics()["tidegate_store_bars_written_total",] == 4, 30, "the rest is stored")


def test_who_takes_a_partition_over_obeys_too(site: OpsSite, control: Control) -> None:
    with site.worker("one", roles="bars") as one, site.worker("two", roles="bars") as two:
        probes = [site.probe(one), site.probe(two)]
        until(
            lambda: all(probe.part("consumer")["bars.assigned"] == "2" for probe in probes), 60, "they share"
        )
        asked = control("pause", "bars")
        details = [answer["result"]["detail"] for answer in asked["answers"]]
        assert len(details) == 2
        assert all(detail.endswith("of 2 partitions") for detail in details)
        for partition in range(4):
            site.tick(0, f"S{partition}", partition)
        one.kill()
        until(lambda: probes[1].part("consumer")["bars.assigned"] == "4", 60, "the other takes over")
        until(lambda: probes[1].part("consumer")["bars.lag"] == "4", 30, "the ticks wait")
        assert probes[1].metrics()["tidegate_ticks_total",] == 0
        control("resume", "bars")
        until(lambda: probes[1].metrics()["tidegate_ticks_total",] == 4, 30, "it goes on")


def test_whoever_is_a_member_of_the_group_answers(site: OpsSite, control: Control) -> None:
    with site.worker("one", roles="bars"):
        joined = partial(site.bars_group.assignment, site.ticks)
        until(joined, 60, "it is a member, and may own nothing yet", every_s=0.01)
        assert len(control("pause", "bars")["answers"]) == 1


def test_settings_are_read_again_whole_or_not_at_all(site: OpsSite, control: Control) -> None:
    with site.worker("worker") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready and probe.part("consumer")["bars.assigned"] == "4", 60, "it is ready")
        assert control("reload", "bars")["answers"][0]["result"]["detail"] == "nothing has changed"

        site.config("worker", scale_hard=0.25, queue_capacity=7)
        [refused] = control("reload", "bars", status=1)["answers"]
        assert refused["result"]["status"] == "error"
        assert (
            "queue_capacity cannot change while it runs, so nothing was changed"
            in refused["result"]["detail"]
        )

        def scale() -> float:
            site.say("hard", 2)
            return probe.metrics()["tidegate_partition_scale", site.ticks, "2"]

        until(lambda: scale() == 0, 20, "it is as it was")
        site.config("worker", scale_hard=0.25)
        [taken] = control("reload", "bars")["answers"]
        assert taken["result"] == {"status": "ok", "detail": "scale_hard = 0.25"}
        until(lambda: scale() == 0.25, 20, "it goes by the new one")

        (site.folder / "worker.toml").write_text("policy = ")
        [refused] = control("reload", "store", status=1)["answers"]
        assert "worker.toml" in refused["result"]["detail"]
        assert probe.metrics()["tidegate_control_actions_total", "store", "reload", "error"] == 1


def test_without_its_topics_workers_run_and_operators_are_told_what_to_do(
    topics: TestTopics, tmp_path: Path
) -> None:
    site = OpsSite(topics, f"duckdb:{tmp_path / 'bars.duckdb'}", tmp_path)
    site.config()
    assert_one_clear_line(
        tidegate("control", "pause", "bars", cwd=tmp_path), "lacks topic", "control.v1", "topics apply"
    )
    assert_one_clear_line(tidegate("control", "log", cwd=tmp_path), "lacks topic", "topics apply")
    with site.worker(roles="bars") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready, 60, "it runs all the same")
        [told] = worker.events("control.off")
        assert told["hint"] == "`tidegate topics apply` creates it"


def test_an_action_without_workers_holds_for_those_that_start(site: OpsSite) -> None:
    done = tidegate("control", "pause", "bars", cwd=site.folder)
    assert (done.returncode, done.stdout) == (
        *(0, b"no worker of bars is running: it holds for those that start\n"),
    )
    assert_one_clear_line(
        tidegate("control", "pause", "bars", "--partition", "9", cwd=site.folder), "they are 0 to 3"
    )
    began = time.monotonic()
    done = tidegate("control", "pause", "bars", "--worker", "gone:1", "--wait", "1", cwd=site.folder)
    assert done.returncode == 1
    assert b"1 worker has not answered within 1 s" in done.stdout
    assert time.monotonic() - began < 15


def test_a_control_topic_that_is_made_anew_begins_anew(site: OpsSite, control: Control) -> None:
    with site.worker(roles="bars") as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready and probe.part("consumer")["bars.assigned"] == "4", 60, "it is ready")
        control("pause", "bars", "--partition", "1")
        control("pause", "bars", "--partition", "2")
        until(lambda: probe.part("consumer")["bars.paused"] == "1,2", 20, "both are paused")
        name = f"{site.prefix}control.v1"
        site.topics.admin.delete_topics([name], operation_timeout=30)[name].result(30)
        until(lambda: name not in site.topics.admin.list_topics(timeout=10).topics, 20, "it is gone")
        site.topics("control.v1", 1, cleanup_policy="compact")
        asked = control("pause", "bars", "--partition", "3", "--wait", "40")
        assert [answer["result"]["status"] for answer in asked["answers"]] == ["ok"]
        until(lambda: probe.part("consumer")["bars.paused"] == "3", 20, "that is what holds")
        assert worker.events("control.anew")
