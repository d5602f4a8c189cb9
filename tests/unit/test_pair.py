"""Two producers that take turns, without a broker: what is in the log, in which order, and what is committed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import LaneLost
from streams import fenced
from streams.outlet import Out
from streams.pair import FencedPair

IDS = ("owner", "owner-b")


class Broker:
    """A log, and what was committed of it; it acknowledges and commits when it is let."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.committed: list[bytes] = []
        self.opened: list[str] = []
        self.aborted: list[bytes] = []
        self.acknowledges = True
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.fenced: set[str] = set()


class Client:
    """A librdkafka producer as far as transactions go: what is wrong with its use is an assertion."""

    def __init__(self, broker: Broker, config: Any) -> None:
        self._broker = broker
        self._id = config["transactional.id"]
        self._queue: list[bytes] = []
        self._transaction: list[bytes] | None = None

    def init_transactions(self, timeout_s: float) -> None:
        self._broker.opened.append(self._id)

    def begin_transaction(self) -> None:
        assert self._transaction is None, "a transaction is open"
        self._transaction = []

    def produce(self, topic: str, value: bytes, *args: Any, **kwargs: Any) -> None:
        assert self._transaction is not None, "there is no transaction"
        if self._id in self._broker.fenced:
            raise KafkaException(KafkaError(KafkaError._FENCED))
        self._queue.append(value)
        self._transaction.append(value)
        self.poll(0)

    def poll(self, timeout_s: float) -> None:
        if self._broker.acknowledges:
            self._broker.log += self._queue
            self._queue.clear()

    def __len__(self) -> int:
        return len(self._queue)

    def commit_transaction(self, timeout_s: float) -> None:
        assert self._transaction is not None, "there is no transaction"
        if self._id in self._broker.fenced:
            raise KafkaException(KafkaError(KafkaError._FENCED))
        if self._queue or not self._broker.may_commit.wait(0.01):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "timed out", retriable=True))
        self._broker.committed += self._transaction
        self._transaction = None

    def abort_transaction(self, timeout_s: float) -> None:
        self._broker.aborted += self._transaction or []
        self._transaction = None


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(fenced, "Producer", lambda config, **options: Client(broker, config))
    return broker


def row(value: bytes) -> Out:
    return Out("state", None, value, 0)


async def test_the_first_producer_is_opened_first_and_commits_first(broker: Broker) -> None:
    pair = FencedPair({}, IDS)
    await pair.open()
    assert broker.opened == list(IDS)
    await pair.seal(())  # nothing is there: the turn stays where it is
    await pair.commit()
    broker.fenced.add("owner")
    with pytest.raises(LaneLost):
        pair.produce("bars", b"1")
    await pair.close()


async def test_what_comes_while_a_transaction_is_committed_is_in_the_next_one(broker: Broker) -> None:
    pair = FencedPair({}, IDS)
    assert pair.produce("bars", b"1")
    await pair.seal([row(b"state 1")])
    broker.may_commit.clear()
    commit = asyncio.create_task(pair.commit())
    assert pair.produce("bars", b"2")
    await asyncio.sleep(0)
    assert (broker.log, broker.committed) == ([b"1", b"2", b"state 1"], [])
    broker.may_commit.set()
    await commit
    assert broker.committed == [b"1", b"state 1"]
    await pair.seal([row(b"state 2")])
    await pair.commit()
    assert broker.committed == [b"1", b"state 1", b"2", b"state 2"]
    # The turn comes back.
    assert pair.produce("bars", b"3")
    await pair.seal(())
    await pair.commit()
    assert broker.committed[4:] == [b"3"]
    await pair.close()


async def test_nothing_is_produced_before_all_that_is_ahead_of_it_is_acknowledged(broker: Broker) -> None:
    pair = FencedPair({}, IDS)
    broker.acknowledges = False
    assert pair.produce("bars", b"1")
    sealing = asyncio.create_task(pair.seal([row(b"state")]))
    await asyncio.sleep(0)
    assert not pair.produce("bars", b"2")
    room = asyncio.create_task(pair.room())
    await asyncio.sleep(0)
    assert not room.done()
    broker.acknowledges = True
    await asyncio.wait_for(asyncio.gather(sealing, room), 5)
    assert pair.produce("bars", b"2")
    assert broker.log == [b"1", b"2"], "the rows are in no hurry"
    await pair.commit()
    assert broker.committed == [b"1", b"state"]
    await pair.close()


@pytest.mark.parametrize("by", ["commit", "room"])
async def test_a_line_that_was_drawn_and_given_up_stays_where_it_is(broker: Broker, by: str) -> None:
    pair = FencedPair({}, IDS)
    broker.acknowledges = False
    pair.produce("bars", b"1")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair.seal([row(b"state")]), 0.01)
    assert not pair.produce("bars", b"2")
    broker.acknowledges = True
    if by == "room":
        await pair.room()
        assert pair.produce("bars", b"2")
    await pair.commit()
    assert broker.committed == [b"1", b"state"]
    await pair.close()


async def test_a_commit_that_fails_takes_the_next_transaction_with_it(broker: Broker) -> None:
    pair = FencedPair({}, IDS)
    pair.produce("bars", b"1")
    await pair.seal(())
    pair.produce("bars", b"2")
    broker.fenced.add("owner")
    with pytest.raises(LaneLost, match="owner: fenced"):
        await pair.commit()
    await pair.close()
    await pair.close()
    assert (broker.committed, sorted(broker.aborted)) == ([], [b"1", b"2"])
    with pytest.raises(LaneLost):
        pair.produce("bars", b"3")


async def test_what_is_closed_while_it_waits_for_the_broker_waits_no_longer(broker: Broker) -> None:
    pair = FencedPair({}, IDS)
    broker.acknowledges = False
    pair.produce("bars", b"1")
    sealing = asyncio.create_task(pair.seal(()))
    await asyncio.sleep(0)
    await pair.close()
    await asyncio.wait_for(sealing, 5)
    with pytest.raises(LaneLost):
        await pair.commit()
