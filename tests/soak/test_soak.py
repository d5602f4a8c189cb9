"""A store ten times slower than the bars that come: nothing grows, nothing swings, nothing is lost.

    tests/soak/run                          # ten minutes of policy step
    tests/soak/run 60 step linear aimd drain

Apache Kafka, PostgreSQL, and two bars workers and a store worker as processes. What is asserted, of the time in
which the store is the bottleneck:

- Memory is flat: no worker has more in the second half than 30 MiB above what it had in the first.
- The queue never holds more than its capacity and one batch of bars.
- The store is kept busy: it takes 95 % of what it takes while it writes whole batches.
- No oscillation faster than the policy's period. All policies pause at `hard`, and `hard` lasts until the queue
  is down to `soft`: the period is what the store needs for (hard - soft) * capacity bars. A pause of a partition
  lasts at least that long, but for the write that was under way when it began and the one in which it ends; so
  there are never more pauses of a partition than periods, and one.

Then the store is made fast again, and all bars equal the oracle's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from confluent_kafka import Message

from schemas.feedback import decode_feedback
from schemas.rate import decode_rate
from soak.figures import Figures, Memory, fastest, largest_batch, pauses, reached, writes_of
from support.bars import execute, schema, wait_stored
from support.kafka import TestTopics, records
from support.scene import ALL, PACED, Scene, held
from support.wait import until
from support.workers import wait_assigned

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]

SECONDS = float(os.environ.get("TIDEGATE_SOAK_S") or 600)
POLICIES = (os.environ.get("TIDEGATE_SOAK_POLICIES") or "step").split()

TICKS_PER_S, INSTRUMENTS = 1500, 150
SLOWER = 10
CAPACITY, WRITE_BATCH = 400, 5
SOFT, HARD = 0.5, 0.8
GROWTH_MIB = 30
BUSY = 0.95

BARS = f"""
queue_capacity = {CAPACITY}
write_batch = {WRITE_BATCH}
soft = {SOFT}
hard = {HARD}"""


@pytest.mark.parametrize("policy", POLICIES)
def test_a_store_that_is_ten_times_too_slow(
    policy: str, kafka: str, topics: TestTopics, postgres: str, tmp_path: Path, measured: list[Figures]
) -> None:
    speed = tmp_path / "speed"
    speed.write_text("")
    with schema(postgres) as dsn:
        scene = Scene(kafka, topics, dsn, tmp_path, BARS, f'policy = "{policy}"')
        with (
            scene.worker("bars-1", "bars") as one,
            scene.worker("bars-2", "bars") as two,
            scene.worker("store", "store", (PACED, str(speed))) as store,
            scene.load(TICKS_PER_S, INSTRUMENTS) as load,
        ):
            everybody = [one, two, store]
            wait_assigned(scene.bars_group, 2, scene.ticks, everybody)
            wait_assigned(scene.store_group, 1, f"{scene.prefix}bars.v1", everybody)
            until(lambda: scene.keeps_up(load), 60, "it keeps up")
            came = _bars_per_s(dsn)
            speed.write_text(str(came / SLOWER))
            until(
                lambda: store.events("store.pressure")[-1]["pressure"] != "ok",
                60,
                "the store is under pressure",
            )

            memory, began, began_at = Memory(), time.monotonic(), time.time()

            def over() -> bool:
                assert [worker.process.poll() for worker in everybody] == [None] * 3, "all work"
                now = time.monotonic()
                memory.note(now, {worker.name: worker.rss() for worker in everybody})
                return now - began >= SECONDS

            until(over, SECONDS + 30, "the time is over", every_s=1.0)
            ended, ended_at = time.monotonic(), time.time()
            speed.write_text("")
            load.stop()

            until(lambda: writes_of(speed)[-1].ended > ended, 30, "the write that was under way is done")
            writes = writes_of(speed)
            most = fastest([one for one in writes if began <= one.began and one.ended <= ended], WRITE_BATCH)
            took = reached(writes, began, ended)
            period_s = (HARD - SOFT) * CAPACITY / most
            said = [decode_feedback(record.value()) for record in _all(scene, "feedback.v1")]
            said = [one for one in said if began_at <= one.ts <= ended_at]
            fullest = max(one.queue_size for one in said)
            emptiest = min(one.queue_size for one in said)
            batch = largest_batch(speed)
            told = [[decode_rate(r.value()) for r in _all(scene, "rate.v1", p)] for p in ALL]
            # The first pause began before the time that is looked at, and the last one may be over after it.
            paused = [[(a, b) for a, b in pauses(some) if began_at <= a and b <= ended_at] for some in told]
            shortest_s = min((b - a for some in paused for a, b in some), default=float("inf"))
            halves = memory.halves()
            expected = load.expected()
            measured.append(
                Figures(
                    policy=policy,
                    seconds=ended - began,
                    max_bars_per_s=most,
                    reached=took,
                    ratio=took / most,
                    slower_by=came / most,
                    queue=f"{emptiest} to {fullest} of {CAPACITY}",
                    pauses="+".join(str(len(some)) for some in paused),
                    period_s=period_s,
                    shortest_pause_s=shortest_s,
                    bars=len(expected),
                    rss_MiB_first_and_second_half=", ".join(
                        f"{name} {a:.0f} {b:.0f}" for name, (a, b) in halves.items()
                    ),
                )
            )
            print(measured[-1], f"largest batch {batch}", [len(some) for some in told], sep="\n")

            until(
                lambda: _count(dsn) >= len(expected),
                60 + SECONDS,
                f"{len(expected)} bars are stored",
                every_s=1.0,
            )
            wait_stored(dsn, expected, 60)
            until(lambda: not held([one, two]), 30, "nothing is held back any more")
            assert [worker.stop() for worker in everybody] == [0] * 3

    for name, (first, second) in halves.items():
        assert second - first <= GROWTH_MIB, f"{name} grows"
    assert fullest <= CAPACITY + batch
    assert took >= BUSY * most
    assert most <= 1.01 * came / SLOWER, "the store is as slow as it was told to be"
    # At both ends there may be a write that was begun before; half a second is for what is said on the way.
    at_least_s = period_s - 2 * WRITE_BATCH / most - 0.5
    assert shortest_s >= at_least_s
    for some in paused:
        assert len(some) <= (ended - began) / at_least_s + 1


def _count(dsn: str) -> int:
    return int(execute(dsn, "SELECT count(*) FROM bars")[0][0])


def _bars_per_s(dsn: str) -> float:
    """Bars of a second of ticks, by those that are stored of some seconds of event time that are over."""
    per_second = "SELECT start_ns, count(*) FROM bars WHERE type = '1s' GROUP BY 1 ORDER BY 1"

    def seconds() -> list[int]:
        # The first second was not a whole one, and the last ones are not over.
        counts = [row[1] for row in execute(dsn, per_second)][1:-3]
        return counts if len(counts) >= 3 else []

    counts = until(seconds, 60, "some seconds of bars are stored", every_s=0.5)
    # Beside the bars of 1 s there is one of 5 s for every instrument.
    return sum(counts) / len(counts) + INSTRUMENTS / 5


def _all(scene: Scene, name: str, partition: int | None = None) -> list[Message]:
    partitions = ALL if partition is None else (partition,)
    return [r for p in partitions for r in records(scene.bootstrap, f"{scene.prefix}{name}", p)]
