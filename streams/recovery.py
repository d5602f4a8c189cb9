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
    lanes = await pipeline.take_over(tps, ids)
    fenced = time.monotonic()
    states = await read_rows(settings, topic, tps)
    read = time.monotonic()
    # These lanes, whatever the pipeline has by now: the next assignment may be under way, with lanes of its own.
    for tp, lane in lanes.items():
        where = f"{tp.topic}[{tp.partition}]"
        try:
            await asyncio.to_thread(lane.restore, tp, states[tp])
        except StateError as exc:
            raise StateError(f"{where}: {exc}", hint=exc.hint) from None
        log.info("state.recovered", partition=where, rows=len(states[tp]), position=pipeline.position(tp))
    for lane in lanes.values():
        lane.ready = True
    log.info(
        "partitions.taken_over",
        partitions=len(tps),
        rows=sum(map(len, states.values())),
        bytes=sum(len(row) for rows in states.values() for row in rows.values()),
        fenced_s=round(fenced - started, 2),
        read_s=round(read - fenced, 2),
        restored_s=round(time.monotonic() - read, 2),
    )
