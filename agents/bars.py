"""Ticks in, bars out.

Takes batches from the tick topics, hands each to the `BarsPipeline` (which applies it to the bar
engine of its partition and produces bars and dead letters), and lets offsets be committed once the
broker has acknowledged what came out. It does not store bars, nor decide how fast ticks come: that
is `agents.store` and `agents.rate_controller`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streams.app import App, batch_agent
from streams.batch import Batch


def bars_agent(app: App, tick_topics: list[str], process: Callable[[Batch], Awaitable[None]]) -> None:
    """Register the agent on `app`; `process` is that of a `BarsPipeline`."""
    batch_agent(app, *tick_topics, name="bars", handle=process)
