"""Whether the broker answers: asked now and then beside everything else, so that nobody who looks has to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.health import HealthComponent, HealthState
from streams.broker import confluent_config
from streams.settings import Settings

EVERY_S = 2.0
_ANSWER_S = 2.0

log = structlog.get_logger(__name__)


class BrokerWatch:
    """Asks for the metadata of one topic. Consumers and producers of the worker mend themselves, and tell nobody.

    The broker is away for too long when the group has given this worker's partitions to others: after the
    session timeout.
    """

    def __init__(self, settings: Settings, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.bound_s = settings.session_timeout / 1e9
        self._settings = settings
        self._topic = topic
        self._clock = clock
        self._error: str | None = "it has not been asked yet"
        self._since = clock()
        self._admin: AdminClient | None = None

    @property
    def away_s(self) -> float:
        """For how long it has not answered; 0 while it does."""
        return 0.0 if self._error is None else self._clock() - self._since

    async def run(self) -> None:
        """Ask until cancelled."""
        self._admin = AdminClient(confluent_config(self._settings))
        try:
            while True:
                self.noted(await asyncio.to_thread(self._ask, self._admin))
                await asyncio.sleep(EVERY_S)
        finally:
            # librdkafka's threads must end before the process does: in the midst of TLS they would crash it.
            self._admin = None

    def _ask(self, admin: AdminClient) -> str | None:
        try:
            admin.list_topics(self._topic, timeout=_ANSWER_S)
        except KafkaException as exc:
            return str(exc.args[0].str())
        return None

    def noted(self, error: str | None) -> None:
        """Take note of an answer, or of why there was none."""
        if self._error is None and error is not None:
            self._since = self._clock()
        self._error = error

    def health(self) -> HealthComponent:
        """The component "broker": not ready where it is away for longer than `bound_s`."""
        details = {"bootstrap": self._settings.broker}
        if self._error is None:
            return HealthComponent("broker", HealthState.healthy, details)
        details |= {"error": self._error, "away_s": f"{self.away_s:.1f}"}
        if self.away_s <= self.bound_s:
            return HealthComponent("broker", HealthState.degraded, details)
        details["not_ready"] = f"it has not answered for {self.away_s:.0f} s"
        return HealthComponent("broker", HealthState.unhealthy, details)
