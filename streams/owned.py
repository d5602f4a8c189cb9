"""The partitions that a role owns now, and how far it is in them. Reads what the client knows: asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from faust.types import TP

from streams.roles import BarsRole, StoreRole
from streams.transport import Consumer


class Owned(NamedTuple):
    """A partition of the role's input."""

    tp: TP
    lag: int | None
    """Offsets not worked on, up to the end of the log; None where the broker has not told it yet."""
    scale: float


def owned(role: BarsRole | StoreRole) -> Iterator[Owned]:
    """All of them, in order. Empty before the worker has joined its group."""
    consumer: Consumer | None = role.app._consumer
    client = consumer and consumer._thread._consumer
    subscription = client and client._subscription.subscription
    assignment = subscription and subscription.assignment
    if consumer is None or not assignment:
        return
    for assigned in sorted(assignment.tps):
        if assigned.topic in role.topics:
            tp = TP(*assigned)
            done = role.pipeline.position(tp) + 1 if isinstance(role, BarsRole) else None
            yield Owned(tp, lag(consumer, tp, assignment.state_value(tp), done), role.scale(tp.partition))


def lag(consumer: Consumer, tp: TP, state: Any, done: int | None) -> int | None:
    """Offsets from `done` up to the end of the log; from the first that is not acknowledged, where that is None.

    `state` is what aiokafka knows of the partition.
    """
    position, ends = state._position, [state.lso]
    if consumer.transport.isolation_level != "read_committed":
        ends.append(state.highwater)  # the broker tells no other
    end = max((end for end in ends if end is not None), default=-1)
    if position is None or end < 0:
        return None
    oldest = consumer.ledger.oldest(tp)
    if oldest is not None:
        done = max(oldest, done or 0)
    # What ends a transaction is an offset, and nothing that is ever done.
    behind = position if done is None or done > consumer.taken.get(tp, -1) else done
    return int(max(0, end - behind))
