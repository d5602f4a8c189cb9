"""The log of what operators ask, followed by every worker for itself: no group, nothing committed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import aiokafka
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError
from streams.broker import aiokafka_config, cluster
from streams.settings import Settings

log = structlog.get_logger(__name__)

#: Where all actions are: the order in which they were asked is that of their offsets.
PARTITION = 0

_RETRY_S = 1.0
#: How often a topic that is not there is looked for.
_LOOK_S = 30.0
_POLL_MS = 500
_CLOSE_S = 3.0


class ControlTopic:
    """Gives every record from the beginning on, and goes on by itself after the broker was away.

    Then it begins anew: whoever follows must not mind to see records again.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.caught_up = asyncio.Event()
        """Set once all was read that there was, or there is no such topic."""
        self.begins: int | None = None
        """Where the log ended when it was first read: what came later was asked of this worker, too."""
        self.on_anew: Callable[[], None] = lambda: None
        """Called where the topic was deleted and made anew: what was read before counts no more."""
        self._settings = settings
        self._topic = topic
        self._end = 0
        self._told = ""

    async def follow(self) -> AsyncGenerator[aiokafka.ConsumerRecord, None]:
        """The records, for as long as somebody takes them."""
        while True:
            try:
                await self._wait_for_topic()
                async with contextlib.aclosing(self._read()) as records:
                    async for record in records:
                        yield record
            except (KafkaError, BrokerError) as exc:
                self._tell("control.unread", str(exc))
            await asyncio.sleep(_RETRY_S)

    async def _wait_for_topic(self) -> None:
        while self._topic not in (await cluster(self._settings)).topics:
            self.caught_up.set()
            self._tell("control.off", f"topic {self._topic} does not exist")
            await asyncio.sleep(_LOOK_S)

    async def _read(self) -> AsyncGenerator[aiokafka.ConsumerRecord, None]:
        consumer = aiokafka.AIOKafkaConsumer(
            **aiokafka_config(self._settings), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        tp = TopicPartition(self._topic, PARTITION)
        try:
            await consumer.start()
            consumer.assign([tp])
            await consumer.seek_to_beginning(tp)
            end = (await consumer.end_offsets([tp]))[tp]
            if self.begins is None:
                self.begins = end
            if end < self._end:
                self._anew()
            last = -1
            while True:
                if await consumer.position(tp) >= end:
                    self.caught_up.set()
                    self._told = ""
                found = await consumer.getmany(tp, timeout_ms=_POLL_MS)
                for record in found.get(tp, ()):
                    if record.offset <= last:
                        self._anew()
                    last, self._end = record.offset, max(self._end, record.offset + 1)
                    yield record
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await consumer.stop()

    def _anew(self) -> None:
        self._end = self.begins = 0
        log.warning("control.anew", topic=self._topic, consequence="what was paused before is not any more")
        self.on_anew()

    def _tell(self, event: str, error: str) -> None:
        if error != self._told:
            self._told = error
            log.warning(
                event,
                error=error,
                consequence="`tidegate control` does not reach this worker",
                hint="`tidegate topics apply` creates it" if event == "control.off" else None,
            )
