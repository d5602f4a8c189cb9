"""An owner that lost its partition can write nothing more, and what it left unfinished is taken back."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from schemas.bar import decode_bar
from schemas.errors import BrokerError, LaneLost, ProduceError
from streams.fenced import FencedProducer
from streams.outlet import Out
from streams.pair import FencedPair
from support.bars import schema, stored, wait_stored
from support.kafka import TestTopics, records
from support.load import Load
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker, wait_assigned

pytestmark = pytest.mark.kafka


class Owners:
    """Owners of one partition, one after the other."""

    def __init__(self, bootstrap: str) -> None:
        self.ids = (uuid.uuid4().hex, uuid.uuid4().hex)
        self.all: list[FencedPair] = []
        self.config = {"bootstrap.servers": bootstrap, "log_level": 0}

    def unopened(self) -> FencedPair:
        self.all.append(FencedPair(self.config, self.ids))
        return self.all[-1]

    async def another(self) -> FencedPair:
        await (owner := self.unopened()).open()
        return owner


@pytest_asyncio.fixture
async def owners(kafka: str) -> AsyncIterator[Owners]:
    owners = Owners(kafka)
    yield owners
    for owner in owners.all:
        await owner.close()


async def commit(owner: FencedPair) -> None:
    """Commit all that was produced."""
    await owner.seal(())
    await owner.commit()


def values(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[bytes]:
    return [message.value() for message in records(bootstrap, topic, isolation=isolation)]


async def test_what_is_committed_appears_at_once_and_in_order(topics: TestTopics, owners: Owners) -> None:
    topic, owner = topics("bars.v1", partitions=1), await owners.another()
    for n in range(3):
        assert owner.produce(topic, b"%d" % n, partition=0)
    assert values(topics.bootstrap, topic) == []
    await commit(owner)
    assert values(topics.bootstrap, topic) == [b"0", b"1", b"2"]
    await commit(owner)  # nothing to commit
    for n in range(3, 7):
        assert owner.produce(topic, b"%d" % n, partition=0)
        await commit(owner)
    assert values(topics.bootstrap, topic)[3:] == [b"3", b"4", b"5", b"6"]


async def test_what_comes_before_a_commit_ends_follows_it_in_the_log_and_is_in_the_next(
    topics: TestTopics, owners: Owners
) -> None:
    topic, state, owner = topics("bars.v1", 1), topics("state", 1), await owners.another()
    for _ in range(200):
        assert owner.produce(topic, b"before", partition=0)
    await owner.seal([Out(state, b"A", b"200", 0)])
    for _ in range(200):
        assert owner.produce(topic, b"after", partition=0)
    inorder = [b"before"] * 200 + [b"after"] * 200
    until(
        lambda: values(topics.bootstrap, topic, "read_uncommitted") == inorder, 10, "bars wait for no commit"
    )
    assert values(topics.bootstrap, topic) == []
    await owner.commit()
    assert values(topics.bootstrap, topic) == [b"before"] * 200
    assert values(topics.bootstrap, state) == [b"200"]


@pytest.mark.parametrize("turn", [0, 1], ids=["of the first producer", "of the second"])
@pytest.mark.parametrize("sent", [True, False], ids=["sent before", "sent after"])
async def test_an_old_owner_writes_nothing_that_counts(
    topics: TestTopics, owners: Owners, sent: bool, turn: int
) -> None:
    topic, old = topics("bars.v1", partitions=1), await owners.another()
    for _ in range(turn):
        old.produce(topic, b"old", partition=0)
        await commit(old)
    if sent:
        old.produce(topic, b"never", partition=0)
        until(
            lambda: b"never" in values(topics.bootstrap, topic, "read_uncommitted"), 10, "the record is sent"
        )
    new = await owners.another()
    new.produce(topic, b"new", partition=0)
    await commit(new)
    old.produce(topic, b"never, too", partition=0)
    with pytest.raises(LaneLost, match="another worker has taken the partition over"):
        await commit(old)
    new.produce(topic, b"newer", partition=0)
    await commit(new)
    assert values(topics.bootstrap, topic) == [b"old"] * turn + [b"new", b"newer"]


async def test_of_two_who_open_at_once_only_who_has_the_first_producer_commits(
    topics: TestTopics, owners: Owners
) -> None:
    topic = topics("bars.v1", partitions=1)
    slow, quick = owners.unopened(), owners.unopened()
    await slow._first.open()
    await quick.open()
    await slow._second.open()
    quick.produce(topic, b"1", partition=0)
    await commit(quick)
    for owner in (slow, quick):
        owner.produce(topic, b"never", partition=0)
        with pytest.raises(LaneLost):
            await commit(owner)
    assert values(topics.bootstrap, topic) == [b"1"]


async def test_what_is_given_back_was_never_there(topics: TestTopics, owners: Owners) -> None:
    topic, owner = topics("bars.v1", partitions=1), await owners.another()
    owner.produce(topic, b"half", partition=0)
    await owner.seal(())
    owner.produce(topic, b"the other half", partition=0)
    await owner.close()
    await owner.close()
    heir = await owners.another()
    heir.produce(topic, b"whole", partition=0)
    await commit(heir)
    assert values(topics.bootstrap, topic) == [b"whole"]
    with pytest.raises(LaneLost):
        owner.produce(topic, b"more", partition=0)


async def test_a_record_that_no_attempt_would_deliver_is_an_error_with_its_cause(
    topics: TestTopics, owners: Owners
) -> None:
    topic, owner = topics("bars.v1", partitions=1, max_message_bytes=1000), await owners.another()
    owner.produce(topic, b"small", partition=0)
    owner.produce(topic, os.urandom(5000), partition=0)
    with pytest.raises(ProduceError, match=rf"{topic}\[0\]: not delivered: .*too large") as refused:
        await commit(owner)
    assert not isinstance(refused.value, LaneLost)
    assert "max.message.bytes" in refused.value.hint


async def test_the_cause_is_told_also_by_the_record_after_the_one_that_was_refused(
    topics: TestTopics, owners: Owners
) -> None:
    topic, owner = topics("bars.v1", partitions=1, max_message_bytes=1000), await owners.another()
    owner.produce(topic, os.urandom(5000), partition=0)

    async def go_on() -> None:
        while owner.produce(topic, b"small", partition=0):
            await owner.room()

    with pytest.raises(ProduceError, match=rf"{topic}\[0\]: not delivered: .*too large"):
        await asyncio.wait_for(go_on(), 10)


async def test_a_broker_that_is_not_there_is_an_error_in_time() -> None:
    owner = FencedProducer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, "nobody")
    with pytest.raises(BrokerError, match="nobody: transactions cannot be begun"):
        await owner.open(timeout_s=0)
    await owner.close()


@pytest.mark.postgres
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_that_was_stopped_for_longer_than_its_session_harms_nothing(
    delivery: str, kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name)
    prefix, ticks_topic = topics.prefix, f"{topics.prefix}ticks.v1"
    group = Group(kafka, f"{prefix}tidegate-bars")
    numbers = itertools.count()
    with schema(postgres) as dsn:
        config = tmp_path / "tidegate.toml"
        config.write_text(
            f'broker = "{kafka}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\nstore = "{dsn}"\n'
            f'session_timeout = "6s"\ndelivery = "{delivery}"\n'
            f'[[ticks]]\ntopic = "{ticks_topic}"\nbars = ["1s", "5s"]\ngrace = "1s"\nidle = "1s"\n'
        )

        def start() -> Worker:
            return Worker(tmp_path, f"worker-{next(numbers)}", config)

        with start() as first, start() as second:
            wait_assigned(group, 2, ticks_topic, [first, second])
            with Load(kafka, ticks_topic, 2000, instruments=20) as load:
                until(lambda: len(stored(dsn)) > 40, 30, "bars flow", every_s=0.2)
                first.process.send_signal(signal.SIGSTOP)
                until(lambda: group.owned_by(1, ticks_topic), 30, "the other worker takes over")
                progress = len(stored(dsn))
                until(lambda: len(stored(dsn)) > progress + 40, 30, "bars flow on one worker", every_s=0.2)
                first.process.send_signal(signal.SIGCONT)
                until(lambda: group.owned_by(2, ticks_topic), 60, "the first comes back", every_s=0.2)
                progress = len(stored(dsn))
                until(lambda: len(stored(dsn)) > progress + 40, 30, "bars flow on both", every_s=0.2)
                load.stop()
                wait_stored(dsn, load.expected(), 60)
                # The store may have had the last of them before they were committed.
                keys = len(load.expected())
                until(lambda: len(published(kafka, f"{prefix}bars.v1")) == keys, 10, "all is committed")
                assert [first.process.poll(), second.process.poll()] == [None, None]


def published(bootstrap: str, topic: str) -> dict[bytes, int]:
    """The last offset in the newest version of each bar; no version is there twice, none after a newer one."""
    seen: set[tuple[Any, ...]] = set()
    newest: dict[bytes, int] = {}
    for partition in range(4):
        for message in records(bootstrap, topic, partition):
            bar = decode_bar(message.value())
            version = (message.key(), bar.last_offset, bar.revision, bar.final)
            assert version not in seen
            seen.add(version)
            # What compaction keeps is the last record of each key: it must not be an older version.
            assert newest.get(message.key(), -1) <= bar.last_offset
            newest[message.key()] = bar.last_offset
    return newest
