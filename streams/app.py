"""Faust apps as Tidegate runs them: on our transport, with nothing on disk and no web server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

import faust
import structlog
from faust.app.base import BootStrategy
from faust.tables import TableManager
from faust.types import TP
from yarl import URL

from streams.batch import Batch
from streams.broker import faust_credentials
from streams.metrics import BATCH_RECORDS
from streams.settings import Settings
from streams.tally import Tally
from streams.transport import SCHEME, RawSchema, Transport

Handler = Callable[[Batch], Awaitable[None]]
Step = Callable[[], Awaitable[None]]

#: How often what became committable is committed: more often only costs requests.
COMMIT_INTERVAL_S = 1.0

#: How often a worker tells its groups that it lives.
HEARTBEAT_S = 1.0

log = structlog.get_logger(__name__)


class _Boot(BootStrategy):  # type: ignore[misc]
    # The command ``faust worker`` would start one in every worker, all on the same port.
    enable_web = False


class _Tables(TableManager):  # type: ignore[misc]
    logger = logging.getLogger("faust.tables")  # mode would take this module's, which is ours

    async def on_start(self) -> None:
        # Faust sleeps for a second first, so that tables can be declared: we have none, and each role would
        # join its group that much later.
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class App(faust.App):  # type: ignore[misc]
    """A Faust app of one role, with what it does before it starts, when it leaves and at the end.

    `startup` runs before anything is consumed, and raises what is missing. `drain` runs when the
    worker leaves, with the consumer still in the group and fetching no more batches, so that what
    was taken can be finished and committed. `cleanup` runs last.
    """

    BootStrategy = _Boot
    logger = logging.getLogger("faust.app")  # mode would take this module's, which is ours

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.startup: list[Step] = []
        self.drain: list[Step] = []
        self.cleanup: list[Step] = []
        self.joined = False
        """Whether it has had its first share of partitions, with all that is read at a take-over."""
        self.batch_sizes: dict[str, Tally] = {}
        """Records a batch, by agent."""
        self._draining = False

    @property
    def leaving(self) -> bool:
        """Whether it has been told to stop."""
        return bool(self.should_stop)

    def _create_directories(self) -> None:
        """Nothing is kept on disk."""

    async def on_start(self) -> None:
        for step in self.startup:
            await step()
        await super().on_start()

    async def on_stop(self) -> None:
        self.transport.draining = self._draining = True
        for step in self.drain:
            try:
                await step()
            except Exception as exc:
                log.error("drain.failed", error=str(exc), consequence="what is not committed is read again")
        self._draining = False
        await super().on_stop()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        if self._draining:
            await self.on_partitions_revoked.send(revoked)
        await super()._on_partitions_revoked(revoked)

    def _on_rebalance_when_stopped(self) -> None:
        """Nothing: Faust would cut the connection, and the group would wait for our session to end."""

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        await self.clean_up()

    def give_up(self, tps: Iterable[TP]) -> None:
        """Have the group share its partitions anew, because these cannot be worked on as things are.

        What was taken of them is never acknowledged; whoever gets them reads it again.
        """
        tps = set(tps)
        self.consumer.new_epochs(tps)
        self.consumer.ledger.forget(tps)
        self.consumer.rejoin()

    async def leave(self, timeout_s: float = 5.0) -> None:
        """Leave after a crash: end agents, which their supervisors would start anew, tasks and the consumer."""
        for other in self._children:
            if isinstance(other, App):
                await other.leave(timeout_s)
        for agent in self.agents.values():
            await agent.stop()
        # Cleaning up would take from under them what they use, or wait for them: a write may take very long.
        for task in (tasks := list(self._futures)):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        # Nothing is sent with Faust's own producer, but asyncio would complain of it.
        if (producer := self._producer and self._producer._producer) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await producer.stop()
        # Its thread needs our event loop to leave the group.
        thread = self._consumer and self._consumer._thread._thread
        if thread:
            await asyncio.to_thread(thread.join, timeout_s)

    async def clean_up(self) -> None:
        """Run the last steps, once."""
        steps, self.cleanup = self.cleanup, []
        for step in steps:
            await step()


def build_app(settings: Settings, role: str, batch_topics: frozenset[str]) -> App:
    """A Faust app whose topics in `batch_topics` arrive in batches; its group is GROUP-role."""
    session_timeout_s = settings.session_timeout / 1e9
    app = App(
        f"{settings.group}-{role}",
        broker=[URL(f"{SCHEME}://{server.strip()}") for server in settings.broker.split(",")],
        broker_credentials=faust_credentials(settings),
        broker_session_timeout=session_timeout_s,
        broker_request_timeout=max(90.0, session_timeout_s + 10),
        # A member learns by its heartbeat that the group shares its partitions anew, and all wait for the last.
        broker_heartbeat_interval=min(HEARTBEAT_S, session_timeout_s / 3),
        broker_commit_interval=max(COMMIT_INTERVAL_S, settings.checkpoint / 1e9),
        # Faust's own assignor keeps partition p of every topic with one worker; it is in use while
        # there are standby replicas. With round robin feedback reaches the wrong worker.
        table_standby_replicas=1,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_recovery_delay=0.0,
        web_enabled=False,
        autodiscover=False,
        TableManager=_Tables,
    )
    transport: Transport = app.transport
    transport.batch_topics = batch_topics
    return app


def batch_agent(app: App, *topics: str, name: str, handle: Handler) -> Any:
    """An agent that hands each batch of these topics to `handle`, one after the other.

    An exception stops the worker, and the agent with it: Faust would go on with the next batch.
    """

    sizes = app.batch_sizes[name] = Tally(BATCH_RECORDS.bounds)

    @functools.wraps(handle)
    async def agent(stream: AsyncIterable[Batch]) -> None:
        async for batch in stream:
            batch.taken = True
            if batch.void:
                continue
            sizes.note(len(batch))
            try:
                await handle(batch)
                batch.release()
            except Exception as exc:
                await app.crash(exc)
                return

    channel = app.topic(*topics, schema=RawSchema(), acks=False)
    return app.agent(channel, name=f"{app.conf.id}.{name}", concurrency=1)(agent)


def every(app: App, interval_s: float, step: Step, name: str, first_s: float = 0.0) -> None:
    """Run `step` again and again while the app runs, `first_s` later; an exception stops the worker."""

    async def loop() -> None:
        await app.sleep(first_s)
        while not app.should_stop:
            await app.sleep(interval_s)
            await step()

    loop.__name__ = name
    app.task(loop)


def assigned(app: App, topics: Iterable[str]) -> set[TP]:
    """The partitions of these topics that this worker owns now."""
    names = set(topics)
    return {tp for tp in app.consumer.assignment() if tp.topic in names}


async def finish(app: App, step: Step, timeout_s: float) -> None:
    """Repeat `step` until no batch is in flight, then commit. Gives up after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            while not app.consumer.ledger.idle():
                await step()
                await asyncio.sleep(0.01)
    except TimeoutError:
        log.warning(
            "drain.timeout",
            app=app.conf.id,
            after_s=timeout_s,
            consequence="what is not committed is read again by the next owner",
        )
    # A commit that is under way began before the last acknowledgements, and ours would do nothing beside it.
    while await app.consumer.maybe_wait_for_commit_to_finish():
        pass
    await app.consumer.commit()
