"""What a worker does when operators ask: hold partitions back, let go of them, read its settings again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from schemas.control import Action, Audit, Control, Result, decode_control, encode_audit
from schemas.dead_letter import place
from schemas.errors import BadRecord, BrokerError, TidegateError
from streams.broker import confluent_config
from streams.control_topic import ControlTopic
from streams.orders import Orders
from streams.owned import owned
from streams.producer import BarrierProducer
from streams.roles import BarsRole, StoreRole
from streams.settings import Settings
from streams.topics import Topics

log = structlog.get_logger(__name__)

#: A start does not wait longer for it: the control topic may be away where the others are not.
PATIENCE_S = 5.0


def worker_id() -> str:
    """What this process is called in feedback and by operators: HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Operator:
    """Obeys the control topic, and answers each action on the audit topic.

    Contract: what is paused is known before the first partition is fetched, so that a pause
    outlives restarts and rebalances. A pause of the operator and one of a store hold beside each other. What
    cannot be read is logged, counted and passed over.
    """

    def __init__(
        self,
        settings: Settings,
        roles: Mapping[str, BarsRole | StoreRole],
        reload: Callable[[str], str],
    ) -> None:
        self.id = worker_id()
        self.answered: Counter[tuple[str, Action, str]] = Counter()
        """Actions by role, action and result."""
        self.unreadable = 0
        self._settings = settings
        self._topics = Topics(settings.topic_prefix)
        self._roles = roles
        self._reload = reload
        self._orders = Orders()
        self._topic = ControlTopic(settings, self._topics.control)
        self._topic.on_anew = self._forget
        self._handled = -1
        self._producer: BarrierProducer | None = None
        for name, role in roles.items():
            role.holds.by = partial(self.by, name)

    def by(self, role: str, partition: int) -> str | None:
        """Who has paused a partition of a role here; None where nobody has. From any thread."""
        pause = self._orders.pause_of(role, partition, self.id)
        return None if pause is None else pause.actor

    async def known(self) -> None:
        """Return when it is known what is paused, or after `PATIENCE_S`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._topic.caught_up.wait()
        except TimeoutError:
            log.warning(
                "control.unknown",
                topic=self._topics.control,
                after_s=PATIENCE_S,
                consequence="what an operator has paused runs until the topic can be read",
            )

    async def run(self) -> None:
        """Obey until cancelled."""
        try:
            async with contextlib.aclosing(self._topic.follow()) as records:
                async for record in records:
                    await self._take(record.offset, record.value)
        finally:
            if self._producer is not None:
                await self._producer.close(1.0)

    def _forget(self) -> None:
        self._orders = Orders()
        self._handled = -1

    async def _take(self, offset: int, value: bytes | None) -> None:
        if value is None:
            return  # somebody has deleted the key; what was asked under it holds until the next start
        new = offset > self._handled and offset >= (self._topic.begins or 0)
        self._handled = max(self._handled, offset)
        try:
            control = decode_control(value)
        except BadRecord as exc:
            if new:
                self.unreadable += 1
                where = place(self._topics.control, 0, offset)
                log.warning("control.unreadable", where=where, error=str(exc), hint="who else writes to it?")
            return
        self._orders.take(control, offset)
        if new and control.role in self._roles and control.worker in (None, self.id):
            await self._answer(control, await self._obey(control))

    async def _obey(self, control: Control) -> Result:
        try:
            if control.action is Action.reload:
                return Result(status="ok", detail=self._reload(control.role))
            return Result(status="ok", detail=await self._apply(control))
        except TidegateError as exc:
            return Result(status="error", detail=f"{exc} ({exc.hint})" if exc.hint else str(exc))

    async def _apply(self, control: Control) -> str:
        role = self._roles[control.role]
        if isinstance(role, BarsRole):
            await role.throttle.refresh()
        elif role.app._consumer is not None:
            role.app.consumer.wake()
        here = {one.tp.partition for one in owned(role)}
        held = sorted(p for p in here if role.holds.by(p) is not None)
        log.info(
            "role.paused" if control.action is Action.pause else "role.resumed",
            role=control.role,
            partition="all" if control.partition is None else control.partition,
            by=control.actor,
            held=held,
        )
        listed = ", ".join(map(str, held)) or "none"
        return f"paused here: {listed} of {len(here)} partitions"

    async def _answer(self, control: Control, result: Result) -> None:
        self.answered[control.role, control.action, result.status] += 1
        if result.status == "error":
            log.error("control.refused", action=control.action.value, by=control.actor, error=result.detail)
        audit = Audit(
            id=control.id,
            action=control.action,
            actor=control.actor,
            target=control.role,
            partition=control.partition,
            worker=self.id,
            result=result,
            ts=time.time(),
        )
        producer = self._producer = self._producer or BarrierProducer(confluent_config(self._settings))
        try:
            await producer.send(self._topics.audit, encode_audit(audit), key=control.id.encode(), partition=0)
            await producer.barrier()
        except BrokerError as exc:  # it was obeyed all the same
            self._producer = None
            log.warning("control.unanswered", topic=self._topics.audit, error=str(exc), hint=exc.hint)
            await producer.close(0.0)
