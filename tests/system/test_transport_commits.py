"""What is committed, what a seek brings again, and logs that are not plain, on Apache Kafka."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import Producer

from support.batch_processes import Crew, contiguous, flowing, produce
from support.kafka import TestTopics
from support.wait import until

ALL = [0, 1, 2, 3]


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
    assert all(second.offsets("took", topic, p) == list(range(1000)) for p in ALL), "from the start again"


def test_acknowledgements_out_of_order_commit_a_prefix_only(crew: Crew, topics: TestTopics) -> None:
    topic = topics()
    worker = crew.start(topic, max_records=20, ack_after_s=0.05, reverse_acks=True)
    crew.share(topic, worker)
    with crew.watched(topic) as committed, flowing(crew.bootstrap, topic, per_s=4000) as sent:
        until(lambda: len(committed[0]) > 10, 10, "offsets are committed")
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)
    assert crew.group.committed(topic) == sent


def test_a_seek_in_mid_stream_delivers_again_from_there(crew: Crew, topics: TestTopics) -> None:
    topic, seeks = topics(), 40
    worker = crew.start(topic, max_records=50)
    crew.share(topic, worker)
    with flowing(crew.bootstrap, topic, per_s=8000) as sent:
        for _ in range(seeks):
            seen = len(crew.took(topic, 0))
            until(lambda n=seen: len(crew.took(topic, 0)) > n + 50, 5, "records flow", 0.01)
            target = max(0, max(crew.took(topic, 0)) - 500)
            worker.ordered("sought", "seek", tp=[topic, 0], offset=target)
            until(lambda t=target: taken_again(worker.said(), topic, t), 5, f"{target} is taken again", 0.01)
    crew.wait_for(topic, sent)
    crew.wait_committed(topic, sent)
    runs = contiguous(worker.offsets("took", topic, 0))
    assert all(run[0] <= before[-1] + 1 for before, run in pairwise(runs)), "nothing is skipped"


def test_a_seek_while_a_backlog_is_taken_is_not_lost(crew: Crew, topics: TestTopics) -> None:
    topic, seeks, records = topics(partitions=1), 15, 100_000
    produce(crew.bootstrap, topic, records, partitions=[0])
    worker = crew.start(topic)  # fetches as large as they come: much of the time is spent in taking them
    crew.share(topic, worker, partitions=1)
    for i in range(seeks):
        worker.ordered("sought", "seek", tp=[topic, 0], offset=i)
        until(lambda t=i: taken_again(worker.said(), topic, t), 5, f"{i} is taken again", 0.002)
        # At different moments of a fetch.
        moment = time.monotonic() + i * 0.001
        until(lambda t=moment: time.monotonic() >= t, 1, "a moment has passed", 0.002)
    crew.wait_committed(topic, [records])
    assert set(worker.offsets("took", topic, 0)) == set(range(records)), "nothing is skipped"


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
    look = worker.look(topic)[0]
    assert (look["in_flight"], look["committable"]) == (4, None)
    worker.ordered("acknowledged", "acknowledge", count=1)
    crew.wait_committed(topic, [100])


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
    look = worker.look(topic)[0]
    assert (look["in_flight"], look["committable"]) == (4, None)
    worker.ordered("acknowledged", "acknowledge", count=1)
    crew.wait_committed(topic, [100])


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
    until(lambda: worker.offsets("acked", topic, 0) == wanted, 20, "just what its producer kept is taken")
    until(lambda: crew.group.committed(topic, 1) == [wanted[-1] + 1], 5, "up to the last record is committed")
    until(lambda: worker.look(topic)[0]["position"] == end, 5, "the position passes the markers")
    assert worker.look(topic)[0]["caught_up"]

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


def taken_again(said: list[dict[str, Any]], topic: str, target: int) -> bool:
    """Whether, after the last seek, something was taken of partition 0 that begins at its target."""
    last = max(i for i, entry in enumerate(said) if entry["kind"] == "sought")
    return any(
        e["kind"] == "took" and e["tp"] == [topic, 0] and e["ranges"][0][0] == target for e in said[last:]
    )
