"""A producer of one partition: everything in transactions, which only the newest owner can commit.

Kafka's transactional ids are the fence. A worker that takes a partition over calls `open`: the broker
then refuses all that an older owner of the same id may still send, and takes back what it left
uncommitted. That holds for a worker that was stopped for an hour and never knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.errors import BrokerError, LaneLost, ProduceError
from streams.producer import DEFAULTS, hint_for

T = TypeVar("T")

#: A transaction that its owner neither commits nor aborts is aborted by the broker after this, and
#: readers of committed records wait no longer. A broker that is away for longer costs the lane, not data.
TRANSACTION_TIMEOUT_S = 60.0

_CALL_S = 5.0
_SILENT = logging.getLogger("tidegate.librdkafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

#: What no new attempt would mend.
_PERMANENT = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError._AUTHENTICATION,
    }
)

#: How long it is waited for what made a transaction fail: it follows at once, if at all.
_CAUSE_S = 0.1

_GIVEN_UP = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
_FENCED = frozenset(
    {KafkaError._FENCED, KafkaError._FATAL, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
)


class FencedProducer:
    """Produces in transactions under one transactional id. Used from the event loop's thread.

    A transaction begins with the first record after a commit, and there is no room for one before that
    has ended. After `LaneLost` the producer is of no use any more, but to be closed.
    """

    def __init__(
        self, config: Mapping[str, Any], transactional_id: str, timeout_s: float = TRANSACTION_TIMEOUT_S
    ) -> None:
        self.transactional_id = transactional_id
        self._refused: tuple[KafkaError, str] | None = None
        self._producer: Producer | None = Producer(
            {
                **DEFAULTS,
                # Bars of one moment are produced in one go: to wait for more of them would only make them late.
                "linger.ms": 1,
                "queue.buffering.max.kbytes": 64 << 10,
                "message.timeout.ms": int(timeout_s * 1000),
                **config,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(timeout_s * 1000),
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
            },
            logger=_SILENT,
        )
        self._begun = False
        self._closing = False
        self._call: asyncio.Future[None] | None = None
        # librdkafka's transactional calls block, and must follow one another.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{transactional_id}")

    async def open(self, timeout_s: float = 60.0) -> None:
        """Become the owner: fence whoever was, and have its unfinished transaction aborted.

        Raises `BrokerError` if the broker does not answer in time, or refuses; `LaneLost` if it is closed
        meanwhile.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._closing:
            try:
                await self._blocking(lambda p: p.init_transactions(_CALL_S))
                return
            except KafkaException as exc:
                error = exc.args[0]
                if not error.retriable() or loop.time() > deadline:
                    raise BrokerError(
                        f"{self.transactional_id}: transactions cannot be begun: {error.str()}",
                        hint=_hint(error),
                    ) from None
        raise LaneLost(f"{self.transactional_id}: given back before it was open")

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> bool:
        """Add a record to the transaction; False where there is no room now (await `room`, try again)."""
        if (producer := self._producer) is None:
            raise LaneLost(f"{self.transactional_id}: given back")
        if self._call is not None:
            return False  # librdkafka takes nothing while it commits
        try:
            if not self._begun:
                producer.begin_transaction()
                self._begun = True
            producer.produce(topic, value, key, partition, headers=headers)
        except BufferError:
            producer.poll(0)
            return False
        except KafkaException as exc:
            raise self._explained(exc) from None
        return True

    @property
    def begun(self) -> bool:
        """Whether there is anything to commit."""
        return self._begun

    def in_flight(self) -> bool:
        """Whether something that was produced is neither acknowledged nor refused yet. Raises `LaneLost`."""
        if (producer := self._producer) is None:
            return False
        try:
            producer.poll(0)  # a refusal that was not told yet counts as well
        except KafkaException as exc:
            raise self._explained(exc) from None
        return len(producer) > 0

    async def room(self) -> None:
        """Wait a moment for librdkafka to send some of its queue, or to end a commit that was given up."""
        await asyncio.sleep(0.005)

    async def commit(self) -> None:
        """Make all that was produced durable and, for readers of committed records, visible at once.

        Returns when the broker has acknowledged it. Raises `LaneLost` when none of it will ever be
        visible, and plain `ProduceError` where that would happen again. One call at a time; where one
        was cancelled, the next takes it up.
        """
        if self._call is None:
            if not self._begun:
                return
            self._call = asyncio.ensure_future(self._commit())
            self._call.add_done_callback(self._on_answer)
        await asyncio.shield(self._call)

    async def _commit(self) -> None:
        while not self._closing:
            try:
                await self._blocking(lambda p: p.commit_transaction(_CALL_S))
            except KafkaException as exc:
                # librdkafka wants the same call again. Records that do not get through time out by themselves.
                if exc.args[0].retriable():
                    continue
                raise self._explained(exc) from None
            self._begun = False
            return
        raise LaneLost(f"{self.transactional_id}: given back before the broker answered")

    def _on_answer(self, call: asyncio.Future[None]) -> None:
        # Here, because whoever awaited it may be gone.
        self._call = None
        if not call.cancelled():
            call.exception()  # asyncio complains of those that nobody asked for

    async def close(self) -> None:
        """Take back what is not committed, as far as the broker can be reached, and stop. Idempotent."""
        if self._producer is None:
            return
        self._closing = True
        if self._call is not None:
            await asyncio.wait([self._call])
        if self._begun:
            with contextlib.suppress(KafkaException):  # fenced, or the broker is away: it aborts by itself
                await self._blocking(lambda p: p.abort_transaction(_CALL_S))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._destroy)
        self._thread.shutdown(wait=False)

    def _destroy(self) -> None:
        # librdkafka's threads must end before the process does: in the midst of TLS they would crash it.
        self._producer = None

    async def _blocking(self, call: Callable[[Producer], T]) -> T:
        producer = self._producer
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: call(producer))

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        # The first refusal is the cause; those that were thrown out with it follow, or are told before it.
        if error is not None and (self._refused is None or self._refused[0].code() in _GIVEN_UP):
            self._refused = error, f"{message.topic()}[{message.partition()}]"

    def _explained(self, exc: KafkaException) -> ProduceError:
        error: KafkaError = exc.args[0]
        where = self.transactional_id
        if error.code() in _FENCED:
            return LaneLost(
                f"{where}: fenced: another worker has taken the partition over",
                hint="was this process stopped or cut off? or does another group have the same topic_prefix?",
            )
        if self._producer is not None:
            # The cause may not have been told yet: where all that is said is that it failed, it is on its way.
            told = self._refused is not None and self._refused[0].code() not in _GIVEN_UP
            untold = error.code() == KafkaError._STATE and not told
            with contextlib.suppress(KafkaException):  # it tells of a fatal error, which is this one
                self._producer.poll(_CAUSE_S if untold else 0)
        if self._refused is not None:
            error, where = self._refused
        if error.code() in _PERMANENT:
            return ProduceError(f"{where}: not delivered: {error.str()}", hint=_hint(error))
        return LaneLost(f"{where}: the transaction was given up: {error.str()}", hint=_hint(error))


def _hint(error: KafkaError) -> str:
    if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return "the user lacks the right to Write to this transactional id"
    return hint_for(error)
