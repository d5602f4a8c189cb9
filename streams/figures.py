"""The numbers of a worker at one moment, read from where the machinery counts them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping

from schemas.feedback import Level
from schemas.health import HealthState, HealthStatus, not_ready
from schemas.version import __version__
from streams import metrics as m
from streams.metrics import Figure
from streams.operator import Operator
from streams.owned import owned
from streams.registry.core import SchemaRegistry
from streams.roles import BarsRole, StoreRole
from streams.settings import Settings
from streams.store.ecosystem_url import SCHEME, is_ecosystem, parse_ecosystem

_LEVELS = {Level.ok: 0, Level.soft: 1, Level.hard: 2}
_STATES = {HealthState.healthy: 0, HealthState.degraded: 1, HealthState.unhealthy: 2}

#: What market-data-pipeline calls the source of feedback, and its dashboards look for.
_SOURCES = {"store": "store_coordinator"}


def of_bars(role: BarsRole, settings: Settings) -> Iterator[Figure]:
    """The bars role and its rate controller."""
    pipeline, throttle, counts = role.pipeline, role.throttle, role.pipeline.counts
    for metric, value in (
        (m.TICKS, counts.ticks),
        (m.ACCEPTED, counts.accepted),
        (m.LATE, counts.late),
        (m.DUPLICATES, counts.duplicates),
        (m.DROPPED_LATE, counts.dropped),
        (m.SKIPPED, counts.skipped),
        (m.IGNORED, counts.ignored),
        (m.BARS, pipeline.published),
        (m.LANES_LOST, pipeline.lanes_lost),
        (m.PAUSES, throttle.pauses),
        (m.FEEDBACK_UNREADABLE, throttle.unreadable),
    ):
        yield Figure(metric, value)
    yield Figure(m.CHECKPOINT, pipeline.checkpoint_seconds)
    for reason, count in list(pipeline.dead_letters.items()):
        yield Figure(m.DEAD_LETTERS, count, ("bars", reason.value))

    provider = (settings.group,)
    for level in Level:
        yield Figure(m.FEEDBACK_EVENTS, throttle.events[level], (*provider, level.value))
    yield Figure(m.RATE_SCALE, min(map(role.valve.scale, throttle.owned), default=1.0), provider)
    heard = throttle.heard()
    yield Figure(m.BACKPRESSURE, max((_LEVELS[said.level] for said in heard), default=0), provider)
    # Each says the same of all partitions that it writes: the length of its one queue.
    queues = {(said.source, said.coordinator_id): said.queue_size for said in heard}
    depths: Counter[str] = Counter({_SOURCES["store"]: 0})
    for (source, _), size in queues.items():
        depths[_SOURCES.get(source, source)] += size
    for source, size in depths.items():
        yield Figure(m.FEEDBACK_QUEUE, size, (source,))
    yield from _of_input(role)


def of_store(role: StoreRole, settings: Settings) -> Iterator[Figure]:
    """The store role."""
    writer, sink = role.writer, role.writer.counters
    yield Figure(m.STORE_QUEUE, writer.size)
    yield Figure(m.STORE_CAPACITY, writer.capacity)
    yield Figure(m.STORE_LEVEL, _LEVELS[writer.level])
    yield Figure(m.STORE_UP, int(writer.sink_health().connected))
    yield Figure(m.STORE_TAKEN, writer.taken)
    yield Figure(m.STORE_WRITTEN, writer.written)
    yield Figure(m.STORE_STALE, writer.stale)
    yield Figure(m.STORE_REFUSED, writer.dead_lettered)
    for reason, count in list(writer.refused.items()):
        yield Figure(m.DEAD_LETTERS, count, ("store", reason.value))
    drops, policy = writer.drops, writer.drops.policy.value
    # A counter must not fall: what a rebalance brings again stays in the first one, and is counted in another.
    for instrument, count in (drops.by_instrument + drops.again).items():
        yield Figure(m.STORE_DROPPED, count, (instrument, policy))
    for instrument, count in drops.again.items():
        yield Figure(m.STORE_DROPPED_AGAIN, count, (instrument, policy))
    for level in Level:
        yield Figure(m.FEEDBACK_SAID, role.publisher.said[level], (level.value,))

    labels = sink_labels(settings)
    yield Figure(m.SINK_IN, sink.batches_in, labels)
    yield Figure(m.SINK_COMMITTED, sink.batches_committed, labels)
    yield Figure(m.SINK_FAILED, sink.batches_failed, labels)
    yield Figure(m.SINK_ITEMS, sink.items_committed, labels)
    yield Figure(m.SINK_RETRIES, writer.retries, labels)
    yield Figure(m.SINK_DROPPED, writer.dropped_batches, (*labels, policy))
    yield Figure(m.SINK_QUEUE, writer.size, labels)
    yield Figure(m.SINK_SECONDS, role.commit_seconds, labels)
    yield from _of_input(role)


def of_operator(operator: Operator, roles: Mapping[str, BarsRole | StoreRole]) -> Iterator[Figure]:
    """What operators have asked, and what of it holds."""
    for name, role in roles.items():
        for partition in sorted({one.tp.partition for one in owned(role)}):
            paused = role.holds.by(partition) is not None
            yield Figure(m.OPERATOR, int(paused), (name, str(partition)))
    for (name, action, status), count in list(operator.answered.items()):
        yield Figure(m.CONTROL, count, (name, action.value, status))
    yield Figure(m.CONTROL_UNREADABLE, operator.unreadable)


def of_registry(registry: SchemaRegistry) -> Iterator[Figure]:
    """The schema registry's cache."""
    for name in registry.schemas():
        yield Figure(m.SCHEMA_HITS, registry.cache.hits[name], (name,))
        yield Figure(m.SCHEMA_MISSES, registry.cache.misses[name], (name,))


def of_health(status: HealthStatus, settings: Settings) -> Iterator[Figure]:
    """The worker as a whole."""
    for part in status.components:
        yield Figure(m.COMPONENT, _STATES[part.state], (part.name,))
    yield Figure(m.READY, int(not not_ready(status)))
    yield Figure(m.BUILD, 1, (__version__, platform.python_version(), ",".join(settings.roles)))


def sink_labels(settings: Settings) -> tuple[str, str, str]:
    """Of the sink's metrics: the kind of store, the tenant where there is one, the group."""
    url = settings.store.get_secret_value()
    if is_ecosystem(url):
        return SCHEME, parse_ecosystem(url).tenant, settings.group
    return url.partition(":")[0], "", settings.group


def _of_input(role: BarsRole | StoreRole) -> Iterator[Figure]:
    assigned: Counter[str] = Counter(dict.fromkeys(role.topics, 0))
    for tp, lag, scale in owned(role):
        place = tp.topic, str(tp.partition)
        assigned[tp.topic] += 1
        if lag is not None:
            yield Figure(m.LAG, lag, place)
        yield Figure(m.SCALE, scale, place)
        yield Figure(m.PAUSED, int(scale == 0), place)
    for topic, count in assigned.items():
        yield Figure(m.PARTITIONS, count, (topic,))
    for agent, sizes in role.app.batch_sizes.items():
        yield Figure(m.BATCH_RECORDS, sizes, (agent,))
