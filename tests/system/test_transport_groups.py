"""Workers that join, leave, are stopped, killed or crash, on Apache Kafka: no offset is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.batch_processes import Crew, contiguous, flowing, produce
from support.kafka import Kafka, TestTopics
from support.wait import until

ALL = [0, 1, 2, 3]


def test_workers_join_and_leave_in_mid_stream_and_skip_nothing(
    crew: Crew, topics: TestTopics, measured: Callable[[str, float], None]
) -> None:
    topic = topics(partitions=6)
    knobs = {"max_records": 50, "handle_s": 0.005, "ack_after_s": 0.05}
    with crew.watched(topic, 6) as committed, flowing(crew.bootstrap, topic, 4000, partitions=6) as sent:
        first = crew.start(topic, **knobs)
        crew.share(topic, first, partitions=6)
        second = crew.start(topic, **knobs)
        crew.share(topic, first, second, partitions=6)
        third = crew.start(topic, **knobs)
        crew.share(topic, first, second, third, partitions=6)
        assert second.stop() == 0
        crew.share(topic, first, third, partitions=6)
        assert first.stop() == 0
        crew.share(topic, third, partitions=6)
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)
    assert all(len(committed[p]) > 5 for p in range(6)), "offsets were committed all the while"
    twice = sum(len(crew.took(topic, p)) - sent[p] for p in range(6))
    measured("records taken more than once over four rebalances", twice)
    waits = [
        finished["at"] - revoked["at"]
        for member in crew.members
        for revoked, finished in zip(member.said("revoked"), member.said("finished"), strict=True)
    ]
    measured("longest wait of a revocation, seconds", max(waits))
    assert max(waits) < 1, "a revocation waits for what was taken, not for what was dropped"
    assert twice == 0, "what was finished was committed before the partition was given away"


def test_nothing_is_delivered_before_an_assignment_has_recovered(crew: Crew, topics: TestTopics) -> None:
    topic = topics(partitions=6)
    knobs = {"max_records": 50, "recover_s": 0.5, "early_resume": True}
    with crew.watched(topic, 6), flowing(crew.bootstrap, topic, 2000, partitions=6) as sent:
        workers = [crew.start(topic, **knobs)]
        crew.share(topic, *workers, partitions=6)
        for _ in range(2):
            workers.append(crew.start(topic, **knobs))
            crew.share(topic, *workers, partitions=6)
    crew.wait_for(topic, sent)
    for worker in workers:
        state = "revoked"
        for entry in worker.said():
            if entry["kind"] in ("assigned", "revoked", "recovered"):
                state = entry["kind"]
            elif entry["kind"] == "took":
                assert state == "recovered", f"{worker.name} took {entry['ranges']} while {state}"


def test_a_worker_that_is_killed_skips_nothing(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    knobs = {"max_records": 50, "handle_s": 0.005, "ack_after_s": 0.2}
    with crew.watched(topic), flowing(crew.bootstrap, topic, per_s=4000) as sent:
        first = crew.start(topic, **knobs)
        crew.share(topic, first)
        until(lambda: min(crew.group.committed(topic)) > 200, 10, "offsets are committed")
        first.kill()
        committed = crew.group.committed(topic)
        taken = [first.offsets("took", topic, p) for p in ALL]
        second = crew.start(topic, **knobs)
        crew.share(topic, second)
    crew.wait_for(topic, sent)
    for p in ALL:
        assert second.offsets("took", topic, p) == list(range(committed[p], sent[p]))
        assert taken[p] == list(range(len(taken[p])))
        assert committed[p] <= len(taken[p])
    crew.wait_committed(topic, sent)


def test_a_worker_that_is_stopped_finishes_what_it_took(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    knobs = {"max_records": 50, "handle_s": 0.005, "ack_after_s": 0.2}
    with crew.watched(topic), flowing(crew.bootstrap, topic, per_s=4000) as sent:
        first = crew.start(topic, **knobs)
        crew.share(topic, first)
        until(lambda: min(crew.group.committed(topic)) > 200, 10, "offsets are committed")
        assert first.stop() == 0
        taken = [first.offsets("took", topic, p) for p in ALL]
        assert crew.group.committed(topic) == [len(offsets) for offsets in taken]
        assert crew.group.assignment(topic) == [], "it left the group, which need not wait for its session"
        second = crew.start(topic, **knobs)
        crew.share(topic, second)
    crew.wait_for(topic, sent)
    for p in ALL:
        assert crew.took(topic, p) == list(range(sent[p])), f"each offset of [{p}] once"


def test_all_workers_stopped_at_once_leave_in_order(crew: Crew, topics: TestTopics) -> None:
    topic = topics(partitions=6)
    knobs = {"max_records": 50, "handle_s": 0.02, "ack_after_s": 0.5}
    produce(crew.bootstrap, topic, 3000, range(6))
    workers = [crew.start(topic, **knobs) for _ in range(3)]
    with crew.watched(topic, 6):
        crew.share(topic, *workers, partitions=6)
        until(lambda: all(worker.said("acked") for worker in workers), 10, "all of them work")
        for worker in workers:
            worker.process.terminate()
        assert [worker.process.wait(20) for worker in workers] == [0, 0, 0]
        last = crew.start(topic, max_records=500)
        crew.share(topic, last, partitions=6)
        crew.wait_for(topic, [3000] * 6)


def test_a_rebalance_while_a_worker_drains_waits_for_it(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 5000)
    first = crew.start(topic, max_records=50, handle_s=0.05, ack_after_s=None, finish_s=8)
    crew.share(topic, first)
    until(
        lambda: all(first.offsets("took", topic, p) for p in ALL), 10, "batches of all partitions are taken"
    )
    first.process.terminate()
    second = crew.start(topic, max_records=500)
    with crew.watched(topic):
        until(lambda: len(first.said("revoked")) == 2, 15, "the rebalance reaches the worker that drains")
        first.order("acknowledge", count=None)
        assert first.process.wait(10) == 0
        taken = [len(first.offsets("took", topic, p)) for p in ALL]
        assert all(committed >= n for committed, n in zip(crew.group.committed(topic), taken, strict=True))
        until(lambda: second.owned(topic) == set(ALL), 5, "it has left, and its session need not end first")
        crew.wait_for(topic, [5000] * 4)
    assert all(crew.took(topic, p) == list(range(5000)) for p in ALL), "nothing is taken twice"


def test_an_exception_in_the_agent_stops_the_worker_and_commits_nothing_of_its_batch(
    crew: Crew, topics: TestTopics
) -> None:
    topic = topics(partitions=1)
    produce(crew.bootstrap, topic, 1000, partitions=[0])
    worker = crew.start(topic, max_records=50, fail_at=480)
    with crew.watched(topic, 1):
        assert worker.process.wait(20) != 0
    assert "told to fail at 480" in worker.stderr.read_text()
    [committed] = crew.group.committed(topic, 1)
    assert committed <= 450
    assert max(worker.offsets("took", topic, 0)) == 499, "no batch is handled after the one that failed"
    second = crew.start(topic, max_records=50)
    crew.wait_for(topic, [1000])
    assert second.offsets("took", topic, 0)[0] == max(committed, 0)


def test_a_crash_outside_of_the_agents_ends_the_process(crew: Crew, topics: TestTopics) -> None:
    topic, ordinary = topics(), topics("ordinary.v1")
    worker = crew.start(topic, ordinary_topics=(ordinary,))
    crew.share(topic, worker)
    worker.order("what nobody can do")
    assert worker.process.wait(10) == 1
    assert "what nobody can do" in worker.stderr.read_text()
    until(lambda: crew.group.assignment(topic) == [], 2, "it has left the group")


def test_a_worker_that_cannot_learn_its_positions_ends_instead_of_idling(
    own_kafka: Kafka, tmp_path: Path
) -> None:
    topics = TestTopics(own_kafka.address)
    topic = topics()
    with Crew(topics.bootstrap, tmp_path, "group") as crew:
        worker = crew.start(topic, recover_s=1, request_timeout_s=7)
        until(lambda: worker.said("assigned"), 20, "partitions are assigned, and not yet sought")
        own_kafka.kill()
        assert worker.process.wait(30) == 1
        assert "could not be read" in worker.stderr.read_text()


def test_an_ordinary_topic_in_the_same_app_is_read_as_ever(crew: Crew, topics: TestTopics) -> None:
    topic, ordinary = topics(), topics("ordinary.v1")
    knobs = {"ordinary_topics": (ordinary,), "max_records": 50, "handle_s": 0.001}
    with (
        crew.watched(ordinary) as committed,
        crew.watched(topic),
        flowing(crew.bootstrap, ordinary, per_s=800) as sent,
        flowing(crew.bootstrap, topic, per_s=2000) as sent_batches,
    ):
        first = crew.start(topic, **knobs)
        crew.share(topic, first)
        second = crew.start(topic, **knobs)
        crew.share(topic, first, second)
        first.ordered("scaled", "scale", partitions=ALL, scale=0)
        seen = len(committed[0])
        until(lambda: len(committed[0]) > seen, 5, "paused partitions of another topic do not hold it up")
        first.ordered("scaled", "scale", partitions=ALL, scale=1)
        assert second.stop() == 0
        crew.share(topic, first)
    crew.wait_for(ordinary, sent)
    crew.wait_for(topic, sent_batches)
    crew.wait_committed(ordinary, sent)
    for worker in crew.members:
        for p in ALL:
            runs = contiguous(worker.offsets("took", ordinary, p))
            assert len(runs) <= len(worker.said("assigned")), (
                "in order, but for what a rebalance brings again"
            )
