"""Two store workers, the database of one of them stalls: its partitions stop, the others go on."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.bars import schema, stored, wait_stored
from support.kafka import TestTopics
from support.load import Load
from support.proxy import Proxy
from support.wait import until
from support.workers import OWN_TOPICS, Group, Settled, Worker, wait_assigned

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

TICKS_PER_S = 2000
STALL_S = 10
MIB = 1 << 20


def _config(folder: Path, name: str, bootstrap: str, prefix: str, dsn: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(
        f'broker = "{bootstrap}"\ntopic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\nstore = "{dsn}"\n'
        f'queue_capacity = 200\nwrite_batch = 50\nheartbeat = "500ms"\nsession_timeout = "30s"\n'
        f'[[ticks]]\ntopic = "{prefix}ticks.v1"\nbars = ["1s", "5s"]\ngrace = "1s"\nidle = "1s"\n'
    )
    return path


def test_only_the_partitions_of_the_stalled_store_stop_and_nothing_is_lost(
    kafka: str, topics: TestTopics, postgres: str, tmp_path: Path
) -> None:
    for name in ("ticks.v1", *OWN_TOPICS):
        topics(name)
    ticks_topic, prefix = f"{topics.prefix}ticks.v1", topics.prefix
    bars_group, store_group = Group(kafka, f"{prefix}tidegate-bars"), Group(kafka, f"{prefix}tidegate-store")
    url = urlsplit(postgres)
    with (
        schema(postgres) as dsn,
        Proxy(url.hostname or "", url.port or 5432) as proxy,
        Worker(tmp_path, "bars", _config(tmp_path, "bars", kafka, prefix, dsn), "--roles", "bars") as bars,
        Worker(
            tmp_path,
            "stalling",
            _config(tmp_path, "stalling", kafka, prefix, dsn.replace(f":{url.port}/", f":{proxy.port}/")),
            "--roles",
            "store",
        ) as stalling,
        Worker(
            tmp_path, "healthy", _config(tmp_path, "healthy", kafka, prefix, dsn), "--roles", "store"
        ) as healthy,
    ):
        workers = [bars, stalling, healthy]
        wait_assigned(bars_group, 1, ticks_topic, workers)
        wait_assigned(store_group, 2, f"{prefix}bars.v1", workers)
        hit = until(lambda: _half(stalling), 20, "the stalling worker knows its two partitions")
        spared = until(lambda: _half(healthy), 20, "the healthy worker knows its two partitions")
        assert hit | spared == {0, 1, 2, 3}

        with Load(kafka, ticks_topic, TICKS_PER_S, instruments=60) as load:
            until(lambda: len(stored(dsn)) > 200, 30, "bars flow before the stall", every_s=0.2)
            proxy.stall()
            stalled_at = time.monotonic()
            until(lambda: _paused(bars) == hit, 30, f"partitions {hit} are paused, and no others")
            memory = {worker.name: worker.rss() for worker in workers}

            # Positions, not flags: what the group has committed stands still where the store stalls,
            # and moves on at the rate of the producer where it does not.
            settled = Settled(bars_group, ticks_topic, hit)
            still = until(settled, 15, "positions of paused partitions settle", every_s=0.2)
            before = bars_group.committed(ticks_topic)
            target = len(load.sent) + 3 * TICKS_PER_S
            until(lambda: len(load.sent) >= target, 10, "three more seconds of ticks")
            after = bars_group.committed(ticks_topic)
            assert [after[p] for p in sorted(hit)] == still
            moved = sum(after[p] - before[p] for p in spared)
            assert moved > TICKS_PER_S * 3 / 2 * 0.5, f"partitions {spared} moved by {moved} only"
            assert _paused(bars) == hit

            until(lambda: time.monotonic() - stalled_at > STALL_S, STALL_S + 1, "the stall has lasted")
            for worker in workers:
                grown = worker.rss() - memory[worker.name]
                assert grown < 50 * MIB, f"{worker.name} grew by {grown / MIB:.0f} MiB while paused"
            proxy.resume()
            until(lambda: not _paused(bars), 30, "all partitions are resumed, with nobody's help")
            until(
                lambda: all(after[p] < c for p, c in enumerate(bars_group.committed(ticks_topic))),
                20,
                "all move",
            )

        wait_stored(dsn, load.expected(), 60)
        assert [worker.stop() for worker in workers] == [0, 0, 0]


def _half(worker: Worker) -> set[int]:
    assigned = worker.events("store.assigned")
    partitions = set(assigned[-1]["partitions"]) if assigned else set()
    return partitions if len(partitions) == 2 else set()


def _paused(worker: Worker) -> set[int]:
    changes = sorted(
        (entry["timestamp"], entry["partition"], entry["event"])
        for event in ("partition.paused", "partition.slowed", "partition.resumed")
        for entry in worker.events(event)
    )
    latest = {partition: event for _, partition, event in changes}
    return {partition for partition, event in latest.items() if event == "partition.paused"}
