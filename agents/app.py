"""The composition root: one Faust app a role, from settings.

``faust -A agents.app worker`` runs what ``TIDEGATE_ROLES`` names, as ``tidegate worker`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from faust.types import TP

from agents.bars import bars_agent
from agents.rate_controller import rate_controller_agent
from agents.store import store_agent
from streams.app import App, assigned, build_app, every, finish
from streams.broker import check_topics, confluent_config
from streams.figures import of_registry
from streams.flow.controller import RateController
from streams.flow.feedback import FeedbackPublisher
from streams.flow.holds import Holds
from streams.flow.lag import LagWatch
from streams.flow.policy import policy_of
from streams.flow.recall import recall
from streams.flow.throttle import Accept, Throttle, accept_all
from streams.flow.valve import Valve
from streams.gaps import TickGaps, bars_gap
from streams.metrics import SINK_SECONDS
from streams.operator import worker_id
from streams.outlet import Outlet, Unfenced
from streams.pair import FencedPair
from streams.pipeline import TURNS, BarsPipeline
from streams.producer import BarrierProducer
from streams.recovery import take_over
from streams.registry.core import SchemaRegistry
from streams.registry.messages import FEEDBACK
from streams.registry.serdes import BarsIn, BarsOut, TickFrames
from streams.roles import BarsRole, StoreRole
from streams.settings import Settings, load_settings
from streams.store.base import Store, open_store
from streams.store.writer import StoreWriter
from streams.tally import Tally
from streams.topics import Topics
from streams.worker import Worker

log = structlog.get_logger(__name__)


def bars_role(
    settings: Settings, *, pace: Any = None, keep_state: bool = True, accept: Accept = accept_all
) -> BarsRole:
    """The bars and rate-controller agents, in one app and one consumer group.

    `pace` holds bars back where the broker would forget them; without `keep_state` a restart loses
    open windows, which suits a run that has no restarts; `accept` refuses feedback that must not count.
    """
    topics = Topics(settings.topic_prefix)
    tick_names = frozenset(tick.topic for tick in settings.ticks)
    app = build_app(settings, "bars", tick_names | {topics.feedback})
    producer = BarrierProducer(confluent_config(settings))
    valve = Valve()

    def outlet(partition: int) -> Outlet:
        if not keep_state:
            return Unfenced(producer)
        # The ids are those of what is guarded: two groups that write the same state fence each other.
        return FencedPair(confluent_config(settings), topics.owners(partition), settings.transaction_s)

    frames = TickFrames(settings)
    bars_out = BarsOut(settings, topics.bars)
    pipeline = BarsPipeline(
        settings.ticks,
        topics,
        outlet,
        caught_up=lambda tp, offset: valve.scale(tp.partition) > 0 and app.consumer.caught_up(tp, offset),
        pace=pace,
        keep_state=keep_state,
        checkpoint_bytes=settings.checkpoint_bytes,
        codec=frames.codec,
        encode=bars_out.encode,
    )
    holds = Holds()
    controller = RateController(policy_of(settings), settings.feedback_ttl / 1e9)
    throttle = Throttle(
        valve,
        controller,
        producer,
        topics.rate,
        provider=settings.group,
        accept=accept,
        holds=holds,
    )
    app.transport.raw_topics = tick_names
    app.transport.on_batch = frames.ahead(pipeline.read_ahead)
    app.transport.is_open = lambda tp: tp.topic not in tick_names or pipeline.is_ready(tp)
    app.transport.allowance = lambda tp: valve.allowance(tp) if tp.topic in tick_names else None
    app.transport.on_taken = valve.took
    heard_upto: dict[int, int] = {}

    def start_of(tp: TP) -> int | None:
        if tp.topic == topics.feedback:
            return heard_upto.get(tp.partition)
        return None if (at := pipeline.position(tp)) < 0 else at + 1

    app.transport.untracked_topics = frozenset({topics.feedback})
    app.transport.start_of = start_of
    app.transport.on_gap = TickGaps(settings.ticks).leap
    pipeline.on_lost = lambda partition: app.give_up(TP(name, partition) for name in tick_names)
    valve.on_change = lambda: app.consumer.wake()
    bars_agent(app, sorted(tick_names), frames.first(pipeline.process))
    rate_controller_agent(app, topics.feedback, throttle)

    async def preflight() -> None:
        own = (topics.bars, topics.dead_letters, topics.feedback, topics.rate, topics.state)
        await check_topics(settings, [*tick_names, *own], [*tick_names, *own])
        await bars_out.start()

    async def drain() -> None:
        await finish(app, pipeline.checkpoint, settings.drain_timeout / 1e9)

    async def close() -> None:
        await pipeline.release()
        frames.close()
        await producer.close()

    async def on_assigned(sender: Any, now_assigned: set[TP], **kwargs: Any) -> None:
        ticks = {tp.partition for tp in now_assigned if tp.topic in tick_names}
        feedback = {tp.partition for tp in now_assigned if tp.topic == topics.feedback}
        throttle.own(ticks)
        log.info("bars.assigned", partitions=sorted(ticks))
        if ticks != feedback:
            log.error(
                "feedback.elsewhere",
                ticks=sorted(ticks),
                feedback=sorted(feedback),
                consequence="pauses do not reach the worker that must obey them",
                hint="all workers of a group must run the same version with the same tick topics",
            )

    async def recover(sender: Any, **kwargs: Any) -> None:
        if keep_state:
            tps = assigned(app, tick_names)
            _, recalled = await asyncio.gather(
                take_over(settings, topics.state, pipeline, tps),
                recall(settings, topics.feedback, throttle.owned),
            )
            heard_upto.clear()
            heard_upto.update(recalled.ends)
            await throttle.hear(recalled.feedback)
            await throttle.refresh()
        app.joined = True

    async def on_revoked(sender: Any, revoked: set[TP], **kwargs: Any) -> None:
        await finish(app, pipeline.checkpoint, settings.session_timeout / 1e9 / 3)
        await pipeline.release()

    app.startup.append(preflight)
    app.drain.append(drain)
    app.cleanup.append(close)
    app.on_partitions_assigned.connect(on_assigned, weak=False)
    app.on_partitions_revoked.connect(on_revoked, weak=False)
    app.on_rebalance_complete.connect(recover, weak=False)  # awaited before anything is fetched
    interval_s = settings.checkpoint / 1e9
    for turn in range(TURNS):
        step = partial(pipeline.take_turn, turn)
        every(app, interval_s, step, f"checkpoint-{turn}", turn * interval_s / TURNS)
    every(app, 1.0, pipeline.publish_idle, "publish_idle")
    every(app, 1.0, throttle.refresh, "refresh_rates")
    lag = LagWatch(settings, throttle, lambda place: pipeline.position(TP(*place)))
    if keep_state:
        every(app, lag.every_s, lag.look, "lag")

    def apply(new: Settings) -> None:
        controller.policy = policy_of(new)
        lag.thresholds = new.thresholds

    return BarsRole(app, pipeline, throttle, valve, holds, apply, tick_names, frames.components())


def store_role(
    settings: Settings, *, store: Store | None = None, patience_s: float | None = None
) -> StoreRole:
    """The store agent, its queue, its writer and its feedback.

    A database that is away is waited for, for `patience_s` where that is given: then it must be there at
    the start.
    """
    topics = Topics(settings.topic_prefix)
    store = store or open_store(settings.store.get_secret_value(), timeout_s=settings.store_timeout / 1e9)
    app = build_app(settings, "store", frozenset({topics.bars}))
    if settings.delivery == "at_least_once":
        # A bar is what it is whether or not its transaction succeeds: what it takes back comes again.
        app.transport.isolation_level = "read_uncommitted"
    app.transport.on_gap = bars_gap
    holds = Holds()
    app.transport.is_open = lambda tp: holds.by(tp.partition) is None
    producer = BarrierProducer(confluent_config(settings))
    bars_in = BarsIn(settings, topics.bars)
    writer = StoreWriter(
        store,
        producer,
        topics.dead_letters,
        capacity=settings.queue_capacity,
        write_batch=settings.write_batch,
        linger_s=settings.write_linger / 1e9,
        thresholds=settings.thresholds,
        patience_s=patience_s,
        overflow=settings.overflow,
        on_level=lambda: publisher.level_changed(),
        decode=bars_in.decode,
    )
    publisher = FeedbackPublisher(
        writer,
        producer,
        topics.feedback,
        coordinator_id=worker_id(),
        heartbeat_s=settings.heartbeat / 1e9,
    )
    store_agent(app, topics.bars, bars_in.first(writer.put))
    writer.counters.on_commit = (commit_seconds := Tally(SINK_SECONDS.bounds)).note

    async def preflight() -> None:
        own = (topics.bars, topics.dead_letters, topics.feedback)
        await check_topics(settings, own, own)
        await writer.open()

    async def drain() -> None:
        await finish(app, _nothing, settings.drain_timeout / 1e9)
        await publisher.leave()

    async def close() -> None:
        writer.drops.tell()
        bars_in.close()
        await producer.close()
        await store.close()

    async def tell() -> None:
        writer.drops.tell()

    async def on_assigned(sender: Any, now_assigned: set[TP], **kwargs: Any) -> None:
        owned = sorted(tp.partition for tp in now_assigned if tp.topic == topics.bars)
        log.info("store.assigned", partitions=owned)
        await publisher.own(owned)

    async def on_revoked(sender: Any, revoked: set[TP], **kwargs: Any) -> None:
        await finish(app, _nothing, settings.session_timeout / 1e9 / 3)
        writer.forget()

    async def ready(sender: Any, **kwargs: Any) -> None:
        app.joined = True

    app.startup.append(preflight)
    app.drain.append(drain)
    app.cleanup.append(close)
    app.on_partitions_assigned.connect(on_assigned, weak=False)
    app.on_partitions_revoked.connect(on_revoked, weak=False)
    app.on_rebalance_complete.connect(ready, weak=False)  # awaited before anything is fetched
    app.task(writer.run)
    app.task(publisher.run)
    every(app, 1.0, tell, "tell_dropped")

    def apply(new: Settings) -> None:
        writer.thresholds, writer.linger_s = new.thresholds, new.write_linger / 1e9
        publisher.heartbeat_s = new.heartbeat / 1e9

    return StoreRole(
        app,
        writer,
        publisher,
        holds,
        apply,
        commit_seconds,
        frozenset({topics.bars}),
        bars_in.components(),
    )


async def _nothing() -> None:
    """The writer drains by itself."""


def worker(settings: Settings, read_again: Callable[[], Settings] | None = None) -> Worker:
    """The roles that the settings name, with health and metrics; its `app` starts and stops all of it.

    `read_again` gives the settings anew, when an operator asks for that.
    """
    registry = SchemaRegistry.of(settings)
    accept = partial(registry.accept, FEEDBACK) if registry is not None else accept_all
    bars = bars_role(settings, accept=accept) if "bars" in settings.roles else None
    store = store_role(settings) if "store" in settings.roles else None
    made = Worker(settings, bars=bars, store=store, read_again=read_again)
    first = made.app
    for role in made.roles.values():
        if role.app is not first:
            first.service(role.app)
            first.cleanup.append(role.app.clean_up)  # also where the first one fails to start
    first.startup.insert(0, made.open)
    first.startup.append(made.begin)
    first.cleanup.append(made.close)
    if registry is not None:
        made.components.append(registry.health)
        made.sources.append(partial(of_registry, registry))
        first.startup.append(registry.start)
        first.task(registry.run)
        first.cleanup.append(registry.close)
    return made


def compose(settings: Settings, read_again: Callable[[], Settings] | None = None) -> App:
    """The app of the first role, which starts and stops those of the others."""
    return worker(settings, read_again).app


def __getattr__(name: str) -> Any:
    # Only when Faust asks for it: importing this module must not read settings.
    if name == "app":
        globals()["app"] = app = compose(load_settings(), load_settings)
        return app
    raise AttributeError(name)
