"""A lane's producer where calls are cancelled, or overtaken by others, without a broker."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import LaneLost
from streams import fenced
from streams.fenced import FencedProducer

SLOW = KafkaException(KafkaError(KafkaError._TIMED_OUT, "timed out", retriable=True))


class Client:
    """A librdkafka producer as far as transactions go: what is wrong with its use is an assertion."""

    def __init__(self, config: Any, **options: Any) -> None:
        self.open: list[bytes] | None = None
        self.committed: list[bytes] = []
        self.committing = threading.Event()
        self.answered = threading.Event()
        self.reached = threading.Event()
        self.reached.set()

    def init_transactions(self, timeout_s: float) -> None:
        if not self.reached.wait(0.01):
            raise SLOW

    def begin_transaction(self) -> None:
        assert self.open is None, "a transaction is open"
        self.open = []

    def produce(self, topic: str, value: bytes, *args: Any, **kwargs: Any) -> None:
        assert self.open is not None, "there is no transaction"
        assert not self.committing.is_set(), "a transaction takes nothing while it is committed"
        self.open.append(value)

    def commit_transaction(self, timeout_s: float) -> None:
        assert self.open is not None, "there is no transaction"
        self.committing.set()
        if not self.reached.wait(0.01):
            raise SLOW
        self.committing.clear()
        self.committed += self.open
        self.open = None
        self.answered.set()

    def poll(self, timeout_s: float) -> None: ...

    def abort_transaction(self, timeout_s: float) -> None:
        self.open = None


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    made: list[Client] = []

    def make(*args: Any, **kwargs: Any) -> Client:
        made.append(Client(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(fenced, "Producer", make)
    return made


async def abandoned_commit(owner: FencedProducer, client: Client) -> None:
    """A commit that is given up while the broker does not answer."""
    client.reached.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(owner.commit(), 0.05)
    assert client.committing.is_set()


@pytest.mark.parametrize("answered", [True, False], ids=["answered meanwhile", "still under way"])
async def test_a_commit_after_one_that_was_given_up_is_of_all_that_was_produced(
    clients: list[Client], answered: bool
) -> None:
    owner = FencedProducer({}, "owner")
    (client,) = clients
    assert owner.produce("bars", b"1")
    await abandoned_commit(owner, client)
    async with asyncio.timeout(5):
        if answered:
            client.reached.set()
            assert await asyncio.to_thread(client.answered.wait, 5)
        while not owner.produce("bars", b"2"):
            client.reached.set()
            await owner.room()
    await owner.commit()
    assert client.committed == [b"1", b"2"]
    await owner.close()


async def test_a_commit_that_was_given_up_is_taken_up_by_the_next(clients: list[Client]) -> None:
    owner = FencedProducer({}, "owner")
    (client,) = clients
    owner.produce("bars", b"1")
    await abandoned_commit(owner, client)
    again = asyncio.create_task(owner.commit())
    await asyncio.sleep(0)
    assert not again.done()
    client.reached.set()
    await asyncio.wait_for(again, 5)
    assert client.committed == [b"1"]
    await owner.close()


async def test_what_is_given_back_while_it_is_being_opened_is_lost_and_no_other_error(
    clients: list[Client],
) -> None:
    owner = FencedProducer({}, "owner")
    clients[0].reached.clear()
    opening = asyncio.create_task(owner.open())
    await asyncio.sleep(0)
    await owner.close()
    with pytest.raises(LaneLost, match="given back"):
        await opening


async def test_a_commit_that_was_given_up_and_fails_is_told_by_the_next(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner = FencedProducer({}, "owner")
    (client,) = clients
    owner.produce("bars", b"1")
    await abandoned_commit(owner, client)

    def refused(timeout_s: float) -> None:
        client.answered.set()
        raise KafkaException(KafkaError(KafkaError._FENCED))

    monkeypatch.setattr(client, "commit_transaction", refused)
    assert await asyncio.to_thread(client.answered.wait, 5)
    with pytest.raises(LaneLost, match="another worker"):
        await owner.commit()
    await owner.close()
    gc.collect()
    assert caplog.messages == []
