"""Taking tick partitions over: fence whoever had them, then read what they left, then go on from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import structlog
from faust.types import TP

from schemas.errors import StateError
from streams.changelog import log_ids, read_rows
from streams.pipeline import BarsPipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)


async def take_over(settings: Settings, topic: str, pipeline: BarsPipeline, tps: Collection[TP]) -> None:
    """Make `pipeline` the owner of these partitions, with the state that the topic holds of them.

    In this order: after the fence nothing is added to what is read, and it contains all that was
    committed. Raises `BrokerError`, and `StateError` where going on would make wrong bars.
    """
    started = time.monotonic()
    ids = await log_ids(settings, {tp.topic for tp in tps}) if tps else {}
    await pipeline.take_over(tps, ids)
    states = await read_rows(settings, topic, tps)
    for tp, rows in states.items():
        where = f"{tp.topic}[{tp.partition}]"
        try:
            await asyncio.to_thread(pipeline.restore, tp, rows)
        except StateError as exc:
            raise StateError(f"{where}: {exc}", hint=exc.hint) from None
        log.info("state.recovered", partition=where, rows=len(rows), position=pipeline.position(tp))
    log.info("partitions.taken_over", partitions=len(tps), after_s=round(time.monotonic() - started, 2))
