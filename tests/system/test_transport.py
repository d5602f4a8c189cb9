"""Pauses and resumes, on Apache Kafka: what is paused stands still, and nothing undoes a pause."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.batch_processes import Crew, flowing, produce
from support.kafka import TestTopics
from support.wait import until

ALL = [0, 1, 2, 3]


def test_a_pause_in_mid_stream_stops_positions_and_loses_nothing(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, max_records=50, handle_s=0.002)
    crew.share(topic, worker)
    with crew.watched(topic), flowing(crew.bootstrap, topic, per_s=8000) as sent:
        until(lambda: len(crew.took(topic, 0)) > 200, 10, "records flow")
        worker.ordered("scaled", "scale", partitions=[0, 1], scale=0)
        until(
            lambda: all(worker.look(topic)[p]["in_flight"] == 0 for p in (0, 1)), 10, "what was taken is done"
        )
        # Records of the paused partitions stand in the client's buffer, where stock Faust drops them.
        until(lambda: all(worker.look(topic)[p]["buffered"] for p in (0, 1)), 10, "records are buffered")
        before, taken = worker.look(topic), [len(crew.took(topic, p)) for p in ALL]
        until(lambda: len(crew.took(topic, 2)) > taken[2] + 1000, 10, "the other partitions move on")
        after = worker.look(topic)
        for p in (0, 1):
            assert after[p]["position"] == before[p]["position"] == len(crew.took(topic, p)) == taken[p]
        assert after[2]["position"] >= before[2]["position"] + 1000
        until(lambda: crew.group.committed(topic)[:2] == taken[:2], 5, "just what was taken is committed")
        worker.ordered("scaled", "scale", partitions=[0, 1], scale=1)
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)
    for p in ALL:
        assert crew.took(topic, p) == list(range(sent[p])), f"each offset of [{p}] once"


def test_many_short_pauses_lose_nothing(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, max_records=50)
    crew.share(topic, worker)
    with crew.watched(topic), flowing(crew.bootstrap, topic, per_s=8000) as sent:
        for i in range(60):
            worker.ordered("scaled", "scale", partitions=[i % 4, (i + 1) % 4], scale=(0, 0.5, 1)[i % 3])
            p = (i + 2) % 4
            taken = len(crew.took(topic, p))
            worker.ordered("scaled", "scale", partitions=[p], scale=1)
            until(lambda p=p, n=taken: len(crew.took(topic, p)) > n, 5, "an open partition moves", 0.01)
        worker.ordered("scaled", "scale", partitions=ALL, scale=1)
    crew.wait_for(topic, sent)
    for p in ALL:
        assert crew.took(topic, p) == list(range(sent[p])), f"each offset of [{p}] once"


def test_where_the_log_of_a_held_back_partition_ends_is_known_although_it_is_not_fetched(
    crew: Crew, topics: TestTopics
) -> None:
    topic = topics()
    worker = crew.start(topic, closed=(0,))
    crew.share(topic, worker)
    produce(crew.bootstrap, topic, 10, partitions=[0])
    until(lambda: worker.look(topic)[0]["buffered"], 5, "records are buffered")
    produce(crew.bootstrap, topic, 1000, partitions=[0])
    until(lambda: worker.look(topic)[0]["end"] == 1010, 5, "the end is seen")
    assert crew.took(topic, 0) == [], "nothing of it is taken"
    worker.ordered("scaled", "scale", partitions=[0], scale=1)
    crew.wait_for(topic, [1010, 0, 0, 0])
    assert crew.took(topic, 0) == list(range(1010)), "each offset once"


def test_a_resume_takes_effect_at_once_beside_an_idle_topic(
    crew: Crew, topics: TestTopics, measured: Callable[[str, float], None]
) -> None:
    topic, idle = topics(), topics("idle.v1")
    worker = crew.start((topic, idle), closed=(0, 1, 2, 3))
    crew.share(topic, worker)
    first, last = [], []
    for i in range(10):
        p = i % 4
        produce(crew.bootstrap, topic, 10, partitions=[p])
        until(lambda p=p: worker.look(topic)[p]["buffered"], 5, "records are fetched")
        # Only when they have waited for a tenth of a second are others fetched. So what comes now is
        # fetched after the resume, behind a fetch of idle partitions that is under way.
        buffered = time.monotonic()
        until(lambda t=buffered: time.monotonic() > t + 0.3, 1, "idle partitions are being fetched")
        produce(crew.bootstrap, topic, 10, partitions=[p])
        before = len(crew.took(topic, p))
        opened = worker.ordered("scaled", "scale", partitions=[p], scale=1)["at"]
        until(lambda p=p, n=before + 20: len(crew.took(topic, p)) == n, 5, "all of it is taken", 0.005)
        taken = [entry["at"] for entry in worker.said("took") if entry["at"] > opened]
        first.append(taken[0] - opened)
        last.append(taken[-1] - opened)
        worker.ordered("scaled", "scale", partitions=[p], scale=0)
    measured("seconds from resume to first record, worst of 10", max(first))
    measured("seconds from resume to what was not fetched yet, worst of 10", max(last))
    assert max(last) < 0.5


def test_a_record_is_taken_at_once_beside_an_idle_topic(
    crew: Crew, topics: TestTopics, measured: Callable[[str, float], None]
) -> None:
    topic, idle = topics(), topics("idle.v1")
    worker = crew.start((topic, idle))
    crew.share(topic, worker)
    produce(crew.bootstrap, topic, 1)
    crew.wait_for(topic, [1] * 4)
    delays = []
    for i in range(1, 11):
        produce(crew.bootstrap, topic, 1, partitions=[0])
        written = time.monotonic()
        until(lambda n=i: len(crew.took(topic, 0)) > n, 5, "the record is taken", 0.005)
        delays.append(worker.said("took")[-1]["at"] - written)
    measured("seconds from written to taken, worst of 10", max(delays))
    assert max(delays) < 0.5


def test_a_pause_beyond_the_poll_interval_keeps_the_membership(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, closed=(0, 1, 2, 3), max_poll_interval_s=3)
    crew.share(topic, worker)
    produce(crew.bootstrap, topic, 100)
    generation = worker.ordered("look", "look", id="before")["generation"]
    paused = time.monotonic()
    until(lambda: time.monotonic() - paused > 7, 10, "more than two poll intervals have passed")
    assert crew.group.assignment(topic) == [{0, 1, 2, 3}]
    assert crew.took(topic, 0) == []
    worker.ordered("scaled", "scale", partitions=ALL, scale=1)
    crew.wait_for(topic, [100] * 4)
    crew.wait_committed(topic, [100] * 4)
    assert worker.ordered("look", "look", id="after")["generation"] == generation
    assert len(worker.said("assigned")) == 1


def test_faust_cannot_undo_a_closed_valve(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 500)
    knobs = {"closed": (0, 1), "max_records": 50}
    first = crew.start(topic, **knobs)
    with crew.watched(topic):
        crew.share(topic, first)
        crew.wait_for(topic, [0, 0, 500, 500])
        first.ordered("meddled", "meddle")
        second = crew.start(topic, **knobs)
        crew.share(topic, first, second)
        for worker in (first, second):
            worker.ordered("meddled", "meddle")
        produce(crew.bootstrap, topic, 500, partitions=[2, 3])
        crew.wait_for(topic, [0, 0, 1000, 1000])
        assert first.stop() == 0
        crew.share(topic, second)
        second.ordered("meddled", "meddle")
        produce(crew.bootstrap, topic, 500, partitions=[2, 3])
        crew.wait_for(topic, [0, 0, 1500, 1500])
        assert crew.took(topic, 0) == crew.took(topic, 1) == []
        assert {second.look(topic)[p]["position"] for p in (0, 1)} == {0}
        second.ordered("scaled", "scale", partitions=[0, 1], scale=1)
        crew.wait_for(topic, [500, 500, 1500, 1500])


def test_what_waits_for_the_agent_is_bounded(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 1000)
    worker = crew.start(topic, max_records=50, max_waiting=3, handle_s=0.1)
    crew.share(topic, worker)
    deepest = [0] * 4

    def looked() -> bool:
        deepest[:] = [max(deepest[p], state["in_flight"]) for p, state in sorted(worker.look(topic).items())]
        return len(worker.said("took")) >= 20

    until(looked, 20, "twenty batches are handled")
    assert deepest == [3] * 4
