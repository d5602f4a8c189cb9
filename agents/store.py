"""Bars in, rows in the database, feedback out.

Takes batches from the bars topic and puts them into the `StoreWriter`'s bounded queue, waiting
where it is full; batches are acknowledged when the database has committed them. How full the queue
is goes to the feedback topic, on every change of level and as a heartbeat (`FeedbackPublisher`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streams.app import App, batch_agent
from streams.batch import Batch


def store_agent(app: App, bars_topic: str, put: Callable[[Batch], Awaitable[None]]) -> None:
    """Register the agent on `app`; `put` is that of a `StoreWriter`."""
    batch_agent(app, bars_topic, name="store", handle=put)
