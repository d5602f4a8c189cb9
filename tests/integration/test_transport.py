"""The promises of `streams.transport`, kept by real workers on Apache Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from support.batch_processes import Crew, flowing, produce
from support.kafka import Kafka, TestTopics
from support.wait import until


@pytest.fixture
def crew(topics: TestTopics, tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(topics.bootstrap, tmp_path, topics.prefix + "group")
    yield crew
    crew.close()


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Prints a measured number, and puts it into the report."""

    def measured(what: str, value: float) -> None:
        print(f"measured: {what}: {value:.3f}")
        record_property(what, value)

    return measured


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
        until(
            lambda: all(worker.look(topic)[p]["buffered"] for p in (0, 1)),
            10,
            "records are fetched and buffered",
        )
        before, taken = worker.look(topic), [len(crew.took(topic, p)) for p in range(4)]
        until(lambda: len(crew.took(topic, 2)) > taken[2] + 1000, 10, "the other partitions move on")
        after = worker.look(topic)
        for p in (0, 1):
            assert after[p]["position"] == before[p]["position"] == len(crew.took(topic, p)) == taken[p]
        assert after[2]["position"] >= before[2]["position"] + 1000
        until(lambda: crew.group.committed(topic)[:2] == taken[:2], 5, "just what was taken is committed")
        worker.ordered("scaled", "scale", partitions=[0, 1], scale=1)
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)
    for p in range(4):
        assert crew.took(topic, p) == list(range(sent[p])), f"each offset of [{p}] once"


def test_many_short_pauses_lose_nothing(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, max_records=50)
    crew.share(topic, worker)
    with crew.watched(topic), flowing(crew.bootstrap, topic, per_s=8000) as sent:
        for i in range(60):
            worker.ordered("scaled", "scale", partitions=[i % 4, (i + 1) % 4], scale=(0, 0.5, 1)[i % 3])
            taken = len(crew.took(topic, (i + 2) % 4))
            worker.ordered("scaled", "scale", partitions=[(i + 2) % 4], scale=1)
            until(
                lambda p=(i + 2) % 4, n=taken: len(crew.took(topic, p)) > n,
                5,
                "an open partition moves",
                0.01,
            )
        worker.ordered("scaled", "scale", partitions=range_of(4), scale=1)
    crew.wait_for(topic, sent)
    for p in range(4):
        assert crew.took(topic, p) == list(range(sent[p]))


def test_a_resume_takes_effect_at_once_beside_an_idle_topic(
    crew: Crew, topics: TestTopics, measured: Callable[[str, float], None]
) -> None:
    topic, idle = topics(), topics("idle.v1")
    worker = crew.start((topic, idle), closed=(0, 1, 2, 3))
    crew.share(topic, worker)
    delays = []
    for i in range(10):
        produce(crew.bootstrap, topic, 10)
        until(lambda: worker.look(topic)[i % 4]["buffered"], 5, "records are fetched")
        before = len(worker.said("took"))
        opened = worker.ordered("scaled", "scale", partitions=[i % 4], scale=1)["at"]
        entry = until(lambda n=before: worker.said("took")[n:], 5, "the resumed partition is taken", 0.005)[0]
        assert entry["tp"] == [topic, i % 4]
        delays.append(entry["at"] - opened)
        until(lambda n=i: len(crew.took(topic, n % 4)) == 10 * (n + 1), 5, "all of it is taken")
        worker.ordered("scaled", "scale", partitions=[i % 4], scale=0)
    measured("seconds from resume to first record, worst of 10", max(delays))
    assert max(delays) < 0.5


def test_a_record_reaches_a_resumed_partition_at_once_beside_an_idle_topic(
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
    until(lambda: time.monotonic() - paused > 8, 10, "more than two poll intervals have passed")
    assert crew.group.assignment(topic) == [{0, 1, 2, 3}]
    assert crew.took(topic, 0) == []
    worker.ordered("scaled", "scale", partitions=range_of(4), scale=1)
    crew.wait_for(topic, [100] * 4)
    crew.wait_committed(topic, [100] * 4)
    assert worker.ordered("look", "look", id="after")["generation"] == generation
    assert len(worker.said("assigned")) == 1


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


def test_a_worker_that_is_killed_skips_nothing(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    knobs = {"max_records": 50, "handle_s": 0.005, "ack_after_s": 0.2}
    with crew.watched(topic), flowing(crew.bootstrap, topic, per_s=4000) as sent:
        first = crew.start(topic, **knobs)
        crew.share(topic, first)
        until(lambda: min(crew.group.committed(topic)) > 200, 10, "offsets are committed")
        first.kill()
        committed = crew.group.committed(topic)
        taken = [first.offsets("took", topic, p) for p in range(4)]
        second = crew.start(topic, **knobs)
        crew.share(topic, second)
    crew.wait_for(topic, sent)
    for p in range(4):
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
        taken = [first.offsets("took", topic, p) for p in range(4)]
        assert crew.group.committed(topic) == [len(offsets) for offsets in taken]
        assert crew.group.assignment(topic) == [], (
            "it left the group, and did not let it wait for the session to end"
        )
        second = crew.start(topic, **knobs)
        crew.share(topic, second)
    crew.wait_for(topic, sent)
    for p in range(4):
        assert crew.took(topic, p) == list(range(sent[p])), f"each offset of [{p}] once"


def test_all_workers_stopped_at_once_leave_in_order(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    knobs = {"max_records": 50, "handle_s": 0.02, "ack_after_s": 0.5}
    produce(crew.bootstrap, topic, 5000)
    workers = [crew.start(topic, **knobs) for _ in range(3)]
    with crew.watched(topic):
        crew.share(topic, *workers)
        until(lambda: min(crew.group.committed(topic)) > 0, 10, "offsets are committed")
        for worker in workers:
            worker.process.terminate()
        assert [worker.process.wait(20) for worker in workers] == [0, 0, 0]
        last = crew.start(topic, max_records=500)
        crew.share(topic, last)
        crew.wait_for(topic, [5000] * 4)


def test_a_rebalance_while_a_worker_drains_waits_for_it(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 5000)
    first = crew.start(topic, max_records=50, handle_s=0.05, ack_after_s=None, finish_s=8)
    crew.share(topic, first)
    until(lambda: all(first.offsets("took", topic, p) for p in range(4)), 10, "batches of all partitions are taken")
    first.process.terminate()
    crew.start(topic, max_records=500)
    with crew.watched(topic):
        until(lambda: len(first.said("revoked")) == 2, 10, "the rebalance reaches the worker that drains")
        first.order("acknowledge", count=None)
        assert first.process.wait(10) == 0
        taken = [len(first.offsets("took", topic, p)) for p in range(4)]
        assert all(committed >= n for committed, n in zip(crew.group.committed(topic), taken, strict=True))
        crew.wait_for(topic, [5000] * 4)
    assert all(crew.took(topic, p) == list(range(5000)) for p in range(4)), "nothing is taken twice"


def test_what_waits_for_the_agent_is_bounded(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 1000)
    worker = crew.start(topic, max_records=50, max_waiting=3, handle_s=0.2)
    crew.share(topic, worker)
    deepest = [0] * 4

    def looked() -> bool:
        deepest[:] = [max(deepest[p], state["in_flight"]) for p, state in worker.look(topic).items()]
        return len(worker.said("took")) >= 20

    until(looked, 20, "twenty batches are handled")
    assert deepest == [3] * 4


def test_nothing_is_committed_that_is_not_acknowledged(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 1000)
    worker = crew.start(topic, max_records=50, ack_after_s=None)
    crew.share(topic, worker)
    crew.wait_for(topic, [1000] * 4, "took")
    assert worker.stop() == 0
    assert crew.group.committed(topic) == [-1001] * 4
    second = crew.start(topic, max_records=50)
    crew.share(topic, second)
    crew.wait_for(topic, [1000] * 4)
    assert all(second.offsets("took", topic, p) == list(range(1000)) for p in range(4)), "from the start again"


def test_acknowledgements_out_of_order_commit_a_prefix_only(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, max_records=20, ack_after_s=0.05, reverse_acks=True)
    crew.share(topic, worker)
    with crew.watched(topic) as committed, flowing(crew.bootstrap, topic, per_s=4000) as sent:
        until(lambda: len(committed[0]) > 10, 10, "offsets are committed")
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)


def test_a_seek_in_mid_stream_delivers_again_from_there(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, max_records=50)
    crew.share(topic, worker)
    with flowing(crew.bootstrap, topic, per_s=8000) as sent:
        for _ in range(25):
            until(
                lambda n=len(crew.took(topic, 0)): len(crew.took(topic, 0)) > n + 50, 5, "records flow", 0.01
            )
            target = max(0, len(set(crew.took(topic, 0))) - 500)
            worker.ordered("sought", "seek", tp=[topic, 0], offset=target)
            until(lambda: again(worker.said(), topic, target), 5, f"offset {target} is taken again", 0.01)
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)
    runs = contiguous(worker.offsets("took", topic, 0))
    assert all(run[0] <= before[-1] + 1 for before, run in zip(runs, runs[1:], strict=False)), (
        "nothing is skipped"
    )
    assert len(runs) <= 1 + 25 * 2


def test_an_acknowledgement_from_before_a_rebalance_vouches_for_nothing_after_it(
    crew: Crew, topics: TestTopics
) -> None:
    topic = topics(partitions=1)
    produce(crew.bootstrap, topic, 400, partitions=[0])
    worker = crew.start(topic, max_records=100, ack_after_s=None, finish_s=0.1)
    until(lambda: len(worker.offsets("took", topic, 0)) == 400, 20, "four batches are in flight")
    crew.start(topic)
    until(lambda: len(worker.said("recovered")) == 2, 10, "it has the partition back after a rebalance")
    until(lambda: len(worker.offsets("took", topic, 0)) == 800, 10, "all is taken again")
    worker.ordered("acknowledged", "acknowledge", count=4)
    assert worker.offsets("acked", topic, 0) == list(range(400))
    assert worker.look(topic)[0]["in_flight"] == 4
    worker.ordered("acknowledged", "acknowledge", count=1)
    crew.wait_committed(topic, [100])


def test_an_acknowledgement_from_before_a_seek_vouches_for_nothing_after_it(
    crew: Crew, topics: TestTopics
) -> None:
    topic = topics(partitions=1)
    produce(crew.bootstrap, topic, 400, partitions=[0])
    worker = crew.start(topic, max_records=100, ack_after_s=None)
    until(lambda: len(worker.offsets("took", topic, 0)) == 400, 20, "four batches are in flight")
    worker.ordered("sought", "seek", tp=[topic, 0], offset=0)
    until(lambda: len(worker.offsets("took", topic, 0)) == 800, 10, "all is taken again")
    worker.ordered("acknowledged", "acknowledge", count=4)
    assert worker.look(topic)[0]["in_flight"] == 4
    worker.ordered("acknowledged", "acknowledge", count=1)
    crew.wait_committed(topic, [100])


def test_faust_cannot_undo_a_closed_valve(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    produce(crew.bootstrap, topic, 500)
    closed = {"closed": (0, 1), "max_records": 50}
    first = crew.start(topic, **closed)
    with crew.watched(topic):
        crew.share(topic, first)
        crew.wait_for(topic, [0, 0, 500, 500])
        first.ordered("meddled", "meddle")
        second = crew.start(topic, **closed)
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


def test_nothing_is_delivered_before_the_assignment_has_recovered(crew: Crew, topics: TestTopics) -> None:
    topic = topics(partitions=6)
    knobs = {"max_records": 50, "recover_s": 0.5}
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


def test_a_worker_that_cannot_learn_its_positions_ends_instead_of_idling(own_kafka: Kafka, tmp_path: Path) -> None:
    topics = TestTopics(own_kafka.address)
    crew, topic = Crew(topics.bootstrap, tmp_path, "group"), topics()
    worker = crew.start(topic, recover_s=1, request_timeout_s=7)
    try:
        until(lambda: worker.said("assigned"), 20, "partitions are assigned, and not yet sought")
        own_kafka.kill()
        assert worker.process.wait(30) != 0
        assert "could not be read" in worker.stderr.read_text()
    finally:
        crew.close()


def test_an_exception_in_the_agent_stops_the_worker_and_commits_nothing_of_its_batch(
    crew: Crew, topics: TestTopics
) -> None:
    topic = topics(partitions=1)
    produce(crew.bootstrap, topic, 1000, partitions=[0])
    worker = crew.start(topic, max_records=50, fail_at=480, ack_after_s=0.0)
    with crew.watched(topic, 1):
        assert worker.process.wait(20) != 0
    assert "told to fail at 480" in worker.stderr.read_text()
    [committed] = crew.group.committed(topic, 1)
    assert committed <= 480
    assert max(worker.offsets("took", topic, 0)) <= 480 + 50, "no batch is handled after the one that failed"
    second = crew.start(topic, max_records=50)
    crew.wait_for(topic, [1000])
    assert second.offsets("took", topic, 0)[0] == max(committed, 0)


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
        first.ordered("scaled", "scale", partitions=range_of(4), scale=0)
        until(lambda n=len(committed[0]): len(committed[0]) > n, 5, "paused ticks do not hold it up")
        first.ordered("scaled", "scale", partitions=range_of(4), scale=1)
        assert second.stop() == 0
        crew.share(topic, first)
    crew.wait_for(ordinary, sent)
    crew.wait_for(topic, sent_batches)
    crew.wait_committed(ordinary, sent)
    for worker in crew.members:
        for p in range(4):
            runs = contiguous(worker.offsets("took", ordinary, p))
            assert len(runs) <= len(worker.said("assigned")), (
                "in order, but for what a rebalance brings again"
            )


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_are_read(crew: Crew, topics: TestTopics, codec: str) -> None:
    topic = topics(partitions=1)
    produce(crew.bootstrap, topic, 2000, partitions=[0], **{"compression.type": codec})
    worker = crew.start(topic, max_records=300)
    crew.wait_for(topic, [2000])
    crew.wait_committed(topic, [2000])
    assert worker.offsets("took", topic, 0) == list(range(2000))


def test_transactions_leave_gaps_that_confuse_neither_commits_nor_being_caught_up(
    crew: Crew, topics: TestTopics
) -> None:
    topic = topics(partitions=1)
    producer = Producer({"bootstrap.servers": crew.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    wanted, end = [], 0
    for i in range(6):
        producer.begin_transaction()
        for _ in range(20):
            producer.produce(topic, b"kept" if i % 2 == 0 else b"taken back", partition=0)
        producer.flush(10)
        if i % 2 == 0:
            producer.commit_transaction(30)
            wanted += range(end, end + 20)
        else:
            producer.abort_transaction(30)
        end += 21  # the marker has an offset of its own
    worker = crew.start(topic)
    until(lambda: worker.offsets("acked", topic, 0) == wanted, 20, "just what was committed is taken")
    until(lambda: crew.group.committed(topic, 1) == [wanted[-1] + 1], 5, "up to the last record is committed")
    look = until(
        lambda: (s := worker.look(topic)[0])["position"] == end and s, 5, "the position passes the markers"
    )
    assert look["caught_up"]

    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(10)
    produce(crew.bootstrap, topic, 1, partitions=[0])
    assert worker.look(topic)[0]["position"] == end, "nothing beyond an open transaction is taken"
    producer.commit_transaction(30)
    until(lambda: worker.offsets("acked", topic, 0) == [*wanted, end, end + 1], 5, "it is when it commits")

    assert worker.stop() == 0
    second = crew.start(topic)
    crew.share(topic, second, partitions=1)
    until(lambda: second.look(topic)[0]["caught_up"], 10, "a worker with nothing left to take is caught up")
    assert second.offsets("took", topic, 0) == []


def range_of(partitions: int) -> list[int]:
    return list(range(partitions))


def contiguous(offsets: list[int]) -> list[list[int]]:
    """The offsets in the order taken, cut where the next is not one higher."""
    runs: list[list[int]] = []
    for offset in offsets:
        if runs and offset == runs[-1][-1] + 1:
            runs[-1].append(offset)
        else:
            runs.append([offset])
    return runs


def again(said: list[dict], topic: str, target: int) -> bool:
    """Whether, after the last seek, something was taken that begins at its target."""
    last = max(i for i, entry in enumerate(said) if entry["kind"] == "sought")
    return any(
        e["kind"] == "took" and e["tp"] == [topic, 0] and e["ranges"][0][0] == target for e in said[last:]
    )
