"""A worker process for the tests of the transport: takes batches and says so, and obeys lines on its stdin.

What it takes and acknowledges goes to a log file, a JSON line each, written before the thing itself is
done: an offset that is committed is acknowledged in the log, even of a worker that was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faust.types import TP

from streams.app import App, batch_agent, build_app, finish
from streams.batch import Batch
from streams.flow.valve import Valve
from streams.runtime import serve
from streams.settings import load_settings

ROLE = "t"
COMMIT_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is to do; its group is GROUP-t."""

    broker: str
    group: str
    log: str
    batch_topics: tuple[str, ...]
    ordinary_topics: tuple[str, ...] = ()
    closed: tuple[int, ...] = ()
    """Partitions of the first batch topic whose valve is closed from the start."""
    ack_after_s: float | None = 0.0
    """None holds acknowledgements back until told."""
    reverse_acks: bool = False
    """Acknowledges the batches of a moment in reverse order."""
    handle_s: float = 0.0
    """How long the handler works on a batch or an event."""
    fail_at: int | None = None
    """The offset at which the handler raises."""
    max_waiting: int = 4
    max_records: int | None = None
    """Most records in a batch."""
    max_poll_interval_s: float = 1000.0
    request_timeout_s: float = 90.0
    finish_s: float = 3.0
    recover_s: float = 0.0
    """How long an assignment takes to recover before anything may be fetched."""
    early_resume: bool = False
    """Resumes a new assignment before that. Faust may, when one rebalance follows another."""

    def dumps(self) -> str:
        return json.dumps(asdict(self))


def ranges(offsets: Iterable[int]) -> list[list[int]]:
    """Ascending offsets as [first, last] runs."""
    runs: list[list[int]] = []
    for offset in offsets:
        if runs and runs[-1][1] == offset - 1:
            runs[-1][1] = offset
        else:
            runs.append([offset, offset])
    return runs


class Worker:
    """One app of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.valve = Valve()
        self.unacked: list[tuple[Batch, list[list[int]]]] = []
        self._log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.app = self._build()

    def say(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, "at": time.monotonic(), **values})
        os.write(self._log, line.encode() + b"\n")

    def _build(self) -> App:
        job = self.job
        settings = load_settings(None, broker=job.broker, group=job.group, session_timeout=6 * 10**9)
        app = build_app(settings, ROLE, frozenset(job.batch_topics))
        app.transport.max_waiting = job.max_waiting
        app.conf.broker_commit_interval = COMMIT_INTERVAL_S
        app.conf.broker_max_poll_interval = job.max_poll_interval_s
        app.conf.broker_request_timeout = job.request_timeout_s
        app.conf.broker_max_poll_records = job.max_records
        for partition in job.closed:
            self.valve.set(partition, 0)
        app.transport.allowance = lambda tp: (
            self.valve.allowance(tp) if tp.topic == job.batch_topics[0] else None
        )
        app.transport.on_taken = self.valve.took
        self.valve.on_change = lambda: app.consumer.wake()
        if job.batch_topics:
            batch_agent(app, *job.batch_topics, name="batches", handle=self.handle)
        if job.ordinary_topics:
            app.agent(app.topic(*job.ordinary_topics, value_serializer="raw"), name="events")(self.events)

        async def on_assigned(sender: Any, now: set[TP], **kwargs: Any) -> None:
            self.say("assigned", partitions=sorted(now))
            if job.early_resume:
                app.consumer.resume_partitions(now)
                app.flow_control.resume()
                app.consumer.resume_flow()

        async def on_revoked(sender: Any, revoked: set[TP], **kwargs: Any) -> None:
            self.say("revoked", partitions=sorted(revoked))
            await self.finish()
            self.say("finished", partitions=sorted(revoked))

        async def recover(sender: Any, **kwargs: Any) -> None:
            await asyncio.sleep(job.recover_s)
            self.say("recovered", partitions=sorted(app.consumer.assignment()))

        async def listen() -> None:
            reader = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
            while line := await reader.readline():
                await self.obey(json.loads(line))

        app.on_partitions_assigned.connect(on_assigned, weak=False)
        app.on_partitions_revoked.connect(on_revoked, weak=False)
        app.on_rebalance_complete.connect(recover, weak=False)
        app.drain.append(self.finish)
        app.task(listen)
        return app

    async def finish(self) -> None:
        await finish(self.app, self._nothing, self.job.finish_s)

    async def _nothing(self) -> None:
        """Acknowledgements come by themselves."""

    async def handle(self, batch: Batch) -> None:
        offsets = ranges(record.offset for record in batch.records)
        self.say("took", tp=batch.tp, ranges=offsets)
        if self.job.fail_at is not None and batch.first_offset <= self.job.fail_at <= batch.last_offset:
            raise RuntimeError(f"told to fail at {self.job.fail_at}")
        if self.job.handle_s:
            await asyncio.sleep(self.job.handle_s)
        self.unacked.append((batch, offsets))
        if self.job.ack_after_s is not None:
            asyncio.get_running_loop().call_later(self.job.ack_after_s, self.acknowledge)

    def acknowledge(self, count: int | None = None) -> None:
        batches, self.unacked = self.unacked[:count], self.unacked[count:] if count is not None else []
        for batch, offsets in reversed(batches) if self.job.reverse_acks else batches:
            self.say("acked", tp=batch.tp, ranges=offsets)
            batch.ack()

    async def events(self, stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            self.say("took", tp=message.tp, ranges=[[message.offset, message.offset]])
            if self.job.handle_s:
                await asyncio.sleep(self.job.handle_s)
            self.say("acked", tp=message.tp, ranges=[[message.offset, message.offset]])

    async def obey(self, order: dict[str, Any]) -> None:
        consumer = self.app.consumer
        match order:
            case {"do": "scale", "partitions": partitions, "scale": scale}:
                for partition in partitions:
                    self.valve.set(partition, scale)
                self.say("scaled", scale=scale)
            case {"do": "acknowledge", "count": count}:
                self.acknowledge(count)
                self.say("acknowledged")
            case {"do": "seek", "tp": (topic, partition), "offset": offset}:
                await consumer.seek(TP(topic, partition), offset)
                self.say("sought", offset=offset)
            case {"do": "meddle"}:
                # All that Faust does that makes partitions active again.
                tps = consumer.assignment()
                for tp in tps:
                    consumer.on_buffer_full(tp)
                    consumer.on_buffer_drop(tp)
                consumer.resume_partitions(tps)
                self.say("meddled")
            case {"do": "look", "id": look}:
                self.say("look", id=look, **await self._look())
            case _:
                raise ValueError(order)

    async def _look(self) -> dict[str, Any]:
        consumer = self.app.consumer
        inner = consumer._thread._consumer
        looks = {}
        for tp in consumer.assignment():
            position = await consumer.position(tp)
            looks[f"{tp.topic}|{tp.partition}"] = {
                "position": position,
                "buffered": tp in inner._fetcher._records,
                "end": inner._subscription.subscription.assignment.state_value(tp).lso,
                "in_flight": consumer.ledger.in_flight(tp),
                "committable": consumer.ledger.committable(tp),
                "caught_up": consumer.caught_up(tp, position - 1),
            }
        return {"partitions": looks, "generation": inner._coordinator.generation}


if __name__ == "__main__":
    asyncio.run(serve(Worker(Job(**json.loads(Path(sys.argv[1]).read_text()))).app))
