"""Producing a record now and then, from programs that run no worker: on aiokafka, each one acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import aiokafka
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from schemas.errors import ProduceError
from streams.broker import aiokafka_config
from streams.settings import Settings

#: After this a record that the broker has not acknowledged is an error. It may be in the log all the same.
ACK_S = 10.0
_LEAVE_S = 5.0


class Sender:
    """Connects with the first record. A broker that is away is an error of the call, and not of later ones."""

    def __init__(self, settings: Settings, ack_s: float = ACK_S) -> None:
        self._settings = settings
        self._ack_s = ack_s
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> RecordMetadata:
        """Return when all in-sync replicas have it. Raises `ProduceError`."""
        try:
            async with asyncio.timeout(self._ack_s):
                producer = await self._started()
                return await producer.send_and_wait(topic, value, key, headers=list(headers))
        except (TimeoutError, KafkaError, OSError) as exc:
            cause = f"nothing came back for {self._ack_s:g} s" if isinstance(exc, TimeoutError) else repr(exc)
            raise ProduceError(
                f"broker {self._settings.broker}: {topic}: not acknowledged: {cause}",
                hint="is the broker reachable and in health, and may this user write to the topic?",
            ) from None

    async def _started(self) -> aiokafka.AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = aiokafka.AIOKafkaProducer(
                    **aiokafka_config(self._settings), acks="all", enable_idempotence=True
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def close(self) -> None:
        """Close the connections; what is not acknowledged by now is given up soon."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(TimeoutError, KafkaError, OSError):  # each record has had its own error
                async with asyncio.timeout(_LEAVE_S):
                    await producer.stop()
