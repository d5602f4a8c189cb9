"""Backpressure on Apache Kafka, workers as processes: escalation, owners that change, and odd feedback."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from schemas.feedback import encode_feedback
from support.bars import schema, wait_stored
from support.coordinator import Coordinator
from support.kafka import TestTopics, records
from support.scene import ALL, PACED, TICKS_PER_S, Scene, held
from support.wait import until
from support.workers import Settled, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

MIB = 1 << 20


def shared(store: Worker) -> set[int]:
    """The two partitions of one store of two; none while it has others."""
    assigned = store.events("store.assigned")
    partitions = set(assigned[-1]["partitions"]) if assigned else set()
    return partitions if len(partitions) == 2 else set()


def _at_full_rate(scene: Scene) -> bool:
    return sum(scene.rates()) == pytest.approx(TICKS_PER_S, rel=0.15)


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.covers("feedback loop")
@pytest.mark.covers("escalation")
def test_pressure_rises_and_falls_and_only_its_partitions_slow_down(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    speed = tmp_path / "speed"
    speed.write_text("")
    with schema(postgres) as dsn:
        # From soft to hard are 180 bars, and 10 to 15 more come in a second than are written: time to measure.
        scene = Scene(kafka, topics, dsn, tmp_path, "queue_capacity = 600", "write_batch = 5")
        with (
            scene.worker("bars-1", "bars") as one,
            scene.worker("bars-2", "bars") as two,
            scene.worker("bars-3", "bars") as three,
            scene.worker("slow", "store", (PACED, str(speed))) as slow,
            scene.worker("healthy", "store") as healthy,
            scene.load() as load,
        ):
            bars = [one, two, three]
            everybody = [*bars, slow, healthy]
            wait_assigned(scene.store_group, 2, f"{scene.prefix}bars.v1", everybody)
            until(lambda: sum(map(len, scene.bars_group.assignment(scene.ticks))) == 4, 60, "ticks are owned")
            until(lambda: scene.keeps_up(load), 30, "it keeps up")
            hit = until(lambda: shared(slow), 20, "the slow store knows its two partitions")
            spared = until(lambda: shared(healthy), 20, "the healthy store knows its two partitions")
            assert hit | spared == set(ALL)
            # What is produced, not what is consumed now: who has just taken over still has some left to read.
            began, first = time.monotonic(), scene.bars_group.ends(scene.ticks)
            until(lambda: _at_full_rate(scene), 40, "all run at full rate")
            took_s, last = time.monotonic() - began, scene.bars_group.ends(scene.ticks)
            full = [(b - a) / took_s for a, b in zip(first, last, strict=True)]

            speed.write_text("5")
            until(
                lambda: held(bars) == dict.fromkeys(hit, 0.5), 60, f"{hit} are at half their rate, no others"
            )
            soft = scene.rates()
            beside = f"{spared} run at full rate beside"
            until(scene.bars_group.reaches_the_ends(scene.ticks, spared), 5, f"{beside} soft")
            for partition in hit:
                assert soft[partition] == pytest.approx(0.5 * full[partition], rel=0.2)
            until(lambda: held(bars) == dict.fromkeys(hit, 0.0), 60, f"{hit} are paused, no others")
            until(
                Settled(scene.bars_group, scene.ticks, hit), 20, "paused partitions stand still", every_s=0.2
            )
            hard = scene.rates()
            until(scene.bars_group.reaches_the_ends(scene.ticks, spared), 5, f"{beside} hard")
            assert [hard[partition] for partition in hit] == [0, 0]

            speed.write_text("")
            until(lambda: not held(bars), 60, "all is resumed, with nobody's help")
            until(lambda: scene.keeps_up(load), 60, "it has caught up")
            until(lambda: _at_full_rate(scene), 40, "all run at full rate again")
            load.stop()
            wait_stored(dsn, load.expected(), 60)
            levels = [entry["pressure"] for entry in slow.events("store.pressure")]
            assert levels[:3] == ["ok", "soft", "hard"]
            assert levels[-1] == "ok"
            assert [worker.stop() for worker in everybody] == [0] * 5


@pytest.mark.end_to_end
@pytest.mark.covers("feedback loop")
def test_whoever_gets_a_paused_partition_keeps_it_paused(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    with schema(postgres) as dsn:
        scene = Scene(kafka, topics, dsn, tmp_path)
        with (
            Coordinator(kafka, scene.feedback) as store,
            scene.worker("store", "store") as storing,
            scene.worker("bars-1", "bars") as first,
            scene.load() as load,
        ):
            wait_assigned(scene.bars_group, 1, scene.ticks, [first])
            until(lambda: scene.keeps_up(load), 30, "it keeps up")
            store.say(dict.fromkeys(ALL, "hard"))
            until(lambda: held([first]) == dict.fromkeys(ALL, 0.0), 10, "all are paused")
            positions = until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "all stand still")
            # Three seconds at least, where an instrument that is quiet for one is published early.
            published = [len(records(kafka, f"{scene.prefix}bars.v1", partition)) for partition in ALL]
            until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "all stand still")
            assert published == [
                len(records(kafka, f"{scene.prefix}bars.v1", partition)) for partition in ALL
            ], "a partition that is paused is not idle"

            with scene.worker("bars-2", "bars") as second:
                wait_assigned(scene.bars_group, 2, scene.ticks, [first, second])
                until(lambda: len(held([second])) == 2, 20, "the second worker pauses what it got")
                until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "all stand still")
                # What may pass is what is fetched between taking over and the next heartbeat.
                passed = sum(scene.committed()) - sum(positions)
                assert passed <= TICKS_PER_S, f"{passed} ticks passed in a rebalance"

                positions = scene.committed()
                first.kill()
                wait_assigned(scene.bars_group, 1, scene.ticks, [second])
                until(lambda: len(held([second])) == 4, 20, "the survivor pauses all")
                until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "all stand still")
                passed = sum(scene.committed()) - sum(positions)
                assert passed <= TICKS_PER_S, f"{passed} ticks passed when a worker died"

                store.say(dict.fromkeys(ALL, "ok"))
                until(lambda: not held([second]), 20, "all is resumed")
                load.stop()
                wait_stored(dsn, load.expected(), 60)
                assert [second.stop(), storing.stop()] == [0, 0]


def test_feedback_of_a_flood_and_garbage_change_nothing_but_what_they_say(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    with schema(postgres) as dsn:
        scene = Scene(kafka, topics, dsn, tmp_path, 'feedback_ttl = "60s"')
        store = Coordinator(kafka, scene.feedback)
        with scene.worker("both", "bars,store") as worker, scene.load() as load:
            wait_assigned(scene.bars_group, 1, scene.ticks, [worker])
            until(lambda: scene.keeps_up(load), 30, "it keeps up")
            memory, now, dice = worker.rss(), time.time(), random.Random(1)
            last = now + 0.5
            for number in range(100_000):
                # Old and new, good and bad, twice and out of order; the last word of each partition is `hard`.
                level = dice.choice(("ok", "soft", "hard"))
                if number % 10 == 0:
                    store.send(dice.randbytes(40), number % 4)
                else:
                    feedback = store.feedback(number % 4, level, now - dice.random())
                    store.send(encode_feedback(feedback), number % 4)
            for partition in ALL:
                store.send(encode_feedback(store.feedback(partition, "hard", last)), partition)
            store.flush()
            until(lambda: held([worker]) == dict.fromkeys(ALL, 0.0), 30, "the last word holds")
            until(Settled(scene.bars_group, scene.ticks, set(ALL)), 20, "all stand still")
            assert worker.rss() - memory < 60 * MIB
            assert 0 < len(worker.events("feedback.unreadable")) < 1000
            unreadable = sum(entry["records"] for entry in worker.events("feedback.unreadable"))
            assert unreadable == 10_000, "every one of them is counted"

            for partition in ALL:
                store.send(encode_feedback(store.feedback(partition, "ok", last + 1)), partition)
            store.flush()
            until(lambda: not held([worker]), 20, "all is resumed")
            load.stop()
            wait_stored(dsn, load.expected(), 60)
            assert worker.stop() == 0


@pytest.mark.end_to_end
@pytest.mark.covers("recovery")
def test_without_its_feedback_topic_a_pause_ends_and_with_it_comes_back(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    with schema(postgres) as dsn:
        scene = Scene(kafka, topics, dsn, tmp_path, 'feedback_ttl = "3s"')
        with (
            Coordinator(kafka, scene.feedback) as store,
            scene.worker("bars", "bars") as bars,
            scene.load() as load,
        ):
            wait_assigned(scene.bars_group, 1, scene.ticks, [bars])
            until(lambda: scene.keeps_up(load), 30, "it keeps up")
            store.say(dict.fromkeys(ALL, "hard"))
            until(lambda: held([bars]) == dict.fromkeys(ALL, 0.0), 10, "all are paused")
            topics.admin.delete_topics([scene.feedback])[scene.feedback].result(30)
            gone_at = time.monotonic()
            until(lambda: not held([bars]), 20, "no pause outlives the store's word")
            assert {entry["coordinator"] for entry in bars.events("feedback.silent")} == {"test-store"}
            until(lambda: scene.keeps_up(load), 60, "it keeps up without feedback")
            until(lambda: time.monotonic() - gone_at > 60, 60, "a minute has passed", every_s=1)
            until(lambda: scene.keeps_up(load), 10, "it still keeps up")
            topics("feedback.v1")
            until(lambda: held([bars]) == dict.fromkeys(ALL, 0.0), 90, "its word is heard again")
            store.say(dict.fromkeys(ALL, "ok"))
            until(lambda: not held([bars]), 20, "all is resumed")
            assert bars.stop() == 0
