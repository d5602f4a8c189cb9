"""How a worker says that it is, while it starts, runs, waits and leaves."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from agents import app as composition
from schemas.dead_letter import Reason
from schemas.errors import StoreUnavailable
from schemas.feedback import Level
from schemas.health import HealthComponent, HealthState, not_ready
from streams.batch import Ledger
from streams.broker_watch import BrokerWatch
from streams.metrics import METRICS, Figure
from streams.owned import lag
from streams.settings import load_settings
from streams.tally import Tally
from streams.worker import Worker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Consumer:
    """Owns partitions; of each it knows where its log ends, and has taken all before offset 10."""

    def __init__(self, ends: dict[TP, int | None]) -> None:
        states = {tp: SimpleNamespace(_position=10, lso=end, highwater=end) for tp, end in ends.items()}
        assignment = SimpleNamespace(tps=set(ends), state_value=states.get)
        subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        self._thread = SimpleNamespace(_consumer=SimpleNamespace(_subscription=subscription))
        self.transport = SimpleNamespace(isolation_level="read_committed")
        self.taken = dict.fromkeys(ends, -1)
        self.ledger = Ledger()

    def wake(self) -> None:
        """Nobody waits."""


@pytest.fixture
async def worker() -> Worker:
    made = composition.worker(load_settings(store="duckdb::memory:"))
    made.broker.noted(None)
    return made


def assign(worker: Worker, **lags: int | None) -> None:
    ends = {TP("md.ticks.v1", int(p[1:])): None if lag is None else 10 + lag for p, lag in lags.items()}
    for role in worker.roles.values():
        role.app._consumer = Consumer(ends)
        role.app.joined = True


def part(worker: Worker, name: str) -> HealthComponent:
    [found] = (part for part in worker.health().components if part.name == name)
    return found


async def test_a_worker_that_starts_is_alive_and_not_ready(worker: Worker) -> None:
    status = worker.health()
    assert worker.alive()
    assert [part.name for part in status.components] == ["broker", "consumer", "state", "store"]
    assert not_ready(status) == [
        "consumer: bars is joining; store is joining",
        "state: the state of the first partitions has not been read",
    ]
    assert status.state is HealthState.degraded


async def test_a_worker_that_has_its_partitions_is_ready_also_where_they_are_paused(worker: Worker) -> None:
    assign(worker, p0=3, p2=None)
    assert worker.bars
    worker.bars.valve.set(2, 0.0)
    worker.bars.valve.set(0, 0.5)
    consumer = part(worker, "consumer")
    assert not_ready(worker.health()) == []
    assert consumer.state is HealthState.healthy
    assert consumer.details["bars.assigned"] == "2"
    assert consumer.details["bars.lag"] == "3"
    assert consumer.details["bars.paused"] == "2"
    assert consumer.details["bars.slowed"] == "0"
    assert consumer.details["store.assigned"] == "0"


async def test_a_worker_that_was_told_to_stop_is_not_ready(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign(worker, p0=0)
    monkeypatch.setattr(type(worker.app), "should_stop", True)
    assert not_ready(worker.health()) == ["consumer: bars is draining; store is draining"]
    assert worker.alive()


async def test_a_database_that_is_away_degrades_and_changes_nothing_else(worker: Worker) -> None:
    assign(worker, p0=0)
    assert worker.store
    worker.store.writer._patience.failed(StoreUnavailable("it is away"))
    status = worker.health()
    assert (status.state, not_ready(status)) == (HealthState.degraded, [])
    assert part(worker, "store").details["error"] == "it is away"


async def test_what_is_not_durable_for_long_is_told(worker: Worker) -> None:
    assign(worker, p0=0)
    assert worker.bars
    lane: Any = SimpleNamespace(waits_since=1.0, ready=True, partition=0)
    worker.bars.pipeline._lanes[0] = lane
    assert "nothing was made durable for" in part(worker, "state").details["error"]
    assert part(worker, "state").state is HealthState.degraded


async def test_a_part_that_cannot_say_how_it_is_is_an_answer(worker: Worker) -> None:
    def broken() -> HealthComponent:
        raise RuntimeError("no idea")

    worker.components.append(broken)
    assert worker.health().state is HealthState.unhealthy
    assert part(worker, "unknown").details == {"error": "RuntimeError: no idea"}


async def test_every_figure_is_of_a_metric_with_its_labels(worker: Worker) -> None:
    assign(worker, p0=3, p1=0)
    assert worker.bars
    assert worker.store
    worker.bars.pipeline.dead_letters[Reason.late] += 1
    worker.bars.throttle.events[Level.soft] += 2
    figures = list(worker.figures())
    for metric, value, labels in figures:
        assert len(labels) == len(metric.labels), metric.name
        assert isinstance(value, Tally) == (metric.kind == "histogram"), metric.name
    keys = [(figure.metric.name, figure.labels) for figure in figures]
    assert len(keys) == len(set(keys)), "one figure a name and labels"
    elsewhere = (
        "process_",
        "pulse_",
        "schema_",
        "tidegate_operator",
        "tidegate_control",
        "tidegate_store_bars_",
    )
    missing = {metric.name for metric in METRICS} - {figure.metric.name for figure in figures}
    assert [name for name in missing if not name.startswith(elsewhere)] == []


async def test_drops_are_counted_by_instrument_and_never_fall(worker: Worker) -> None:
    assert worker.store
    drops = worker.store.writer.drops
    drops.by_instrument.update({"A": 3, "B": 1})
    drops.take_back(drops.by_instrument.__class__({"A": 2}))

    def found(name: str) -> dict[str, Any]:
        return {f.labels[0]: f.value for f in figures if f.metric.name == name}

    figures: list[Figure] = list(worker.figures())
    assert found("tidegate_store_bars_dropped_total") == {"A": 3, "B": 1}
    assert found("tidegate_store_bars_undropped_total") == {"A": 2}


@pytest.mark.parametrize(
    ("away_s", "state", "ready"),
    [
        (0.0, HealthState.degraded, True),
        (30.0, HealthState.degraded, True),
        (30.1, HealthState.unhealthy, False),
    ],
)
def test_a_broker_may_be_away_for_as_long_as_the_group_waits(
    away_s: float, state: HealthState, ready: bool
) -> None:
    watch = BrokerWatch(load_settings(), "md.bars.v1", clock := Clock())
    watch.noted(None)
    assert watch.health().state is HealthState.healthy
    watch.noted("timed out")
    clock.now += away_s
    watch.noted("timed out")
    health = watch.health()
    assert (health.state, "not_ready" not in health.details) == (state, ready)
    watch.noted(None)
    assert watch.health().state is HealthState.healthy


async def test_the_endpoint_is_there_before_the_worker_asks_its_broker() -> None:
    worker = composition.worker(
        load_settings(store="duckdb::memory:", http="127.0.0.1:0", broker="127.0.0.1:1")
    )
    assert worker.app.startup[0] == worker.open
    await worker.open()
    assert worker.endpoint
    assert worker.endpoint.address.startswith("127.0.0.1:")
    await asyncio.wait_for(worker.close(), 5)
    assert worker.endpoint is None
    await worker.close()


@pytest.mark.parametrize(
    ("done", "position", "end", "taken", "in_flight", "lag_is"),
    [
        (0, None, None, -1, None, None),  # not sought yet
        (0, 5, None, -1, None, None),  # the broker has not told the end
        (0, 5, 12, -1, None, 7),
        (0, 12, 12, 11, 5, 7),  # taken, and not worked on
        (9, 12, 12, 11, 5, 3),  # worked on, and not acknowledged
        (12, 13, 13, 11, 5, 0),  # the last offset ends a transaction
        (None, 12, 12, 11, None, 0),
        (None, 12, 12, 11, 5, 7),
        (None, 0, 0, -1, None, 0),
    ],
)
def test_the_lag_is_what_has_not_been_worked_on(
    done: int | None,
    position: int | None,
    end: int | None,
    taken: int,
    in_flight: int | None,
    lag_is: int | None,
) -> None:
    consumer: Any = Consumer({(tp := TP("ticks", 0)): 0})
    consumer.taken[tp] = taken
    if in_flight is not None:
        consumer.ledger.deliver(tp, [SimpleNamespace(offset=in_flight), SimpleNamespace(offset=taken)])
    state = SimpleNamespace(_position=position, lso=end, highwater=None)
    assert lag(consumer, tp, state, done) == lag_is
