"""What workers count, scraped while they work on Apache Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer

from schemas.bar import bar_key, encode_bar
from streams.metrics import METRICS
from support.bars import schema
from support.kafka import TestTopics
from support.ops_site import OpsSite
from support.probing import Samples
from support.proxy import Proxy
from support.store_contract import START_NS, a_bar
from support.wait import until

pytestmark = [pytest.mark.kafka, pytest.mark.end_to_end, pytest.mark.covers("metrics")]

#: Of those who have a bridge, a registry or an operator.
_OTHERS = ("pulse_", "schema_cache_", "tidegate_control_actions_", "tidegate_store_bars_")


@pytest.fixture
def site(topics: TestTopics, tmp_path: Path) -> OpsSite:
    """On DuckDB."""
    return OpsSite(topics, f"duckdb:{tmp_path / 'bars.duckdb'}", tmp_path)


def test_both_roles_of_a_process_are_counted_at_one_endpoint(site: OpsSite) -> None:
    with site.worker() as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready, 60, "it is ready")
        for second in range(5):
            site.tick(second, trade_id=second)
        site.tick(4, trade_id=4)  # again
        site.tick(0.5, trade_id=100)  # late
        site.send("ticks.v1", b"garbage", 1)
        site.say("ok", 3)
        site.send("feedback.v1", b"garbage", 3)

        def settled() -> Samples | None:
            found = probe.metrics()
            # Of seconds 0 to 3 the grace keeps one open, and the last is open.
            done = found["tidegate_ticks_total",] == 8 and found["tidegate_store_bars_written_total",] == 3
            heard = found["feedback_events_processed_total", site.group, "ok"] > 0
            lags = [value for (name, *_), value in found.items() if name == "tidegate_partition_lag"]
            committed = found["mdp_sink_batches_committed_total", "duckdb", "", site.group] > 0
            durable = found["tidegate_checkpoint_seconds_count",] >= 2
            return (
                found
                if done and heard and committed and durable and sum(lags) == 0 and len(lags) == 8
                else None
            )

        found = until(settled, 30, "all of it is counted")
        assert found is not None
        assert found["tidegate_ticks_accepted_total",] == 5
        assert found["tidegate_ticks_duplicate_total",] == 1
        assert found["tidegate_ticks_late_total",] == 1
        assert found["tidegate_dead_letters_total", "bars", "late"] == 1
        assert found["tidegate_dead_letters_total", "bars", "malformed"] == 1
        assert found["tidegate_bars_published_total",] == 3
        assert found["tidegate_store_bars_taken_total",] == 3
        assert found["tidegate_store_queue_bars",] == 0
        assert found["tidegate_store_level",] == 0
        assert found["tidegate_store_up",] == 1
        assert found["tidegate_feedback_unreadable_total",] == 1
        assert found["tidegate_batch_records_sum", "bars"] == 8
        assert found["mdp_sink_items_committed_total", "duckdb", "", site.group] == 3
        assert found["mdp_sink_commit_seconds_count", "duckdb", "", site.group] >= 1
        assert found["tidegate_partitions_assigned", site.ticks] == 4
        assert found["tidegate_partitions_assigned", site.bars] == 4
        assert found["pipeline_rate_scale_factor", site.group] == 1
        assert found["pipeline_backpressure_state", site.group] == 0
        assert found["process_resident_memory_bytes",] > 20 << 20
        assert found["tidegate_ready",] == 1
        assert {labels[0] for (name, *labels) in found if name == "tidegate_component_state"} == {
            *("broker", "consumer", "state", "store")
        }

        _, text = probe.get("/metrics")
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert names == {m.name for m in METRICS if not m.name.startswith(_OTHERS)} | {
            *("tidegate_store_bars_taken_total", "tidegate_store_bars_written_total"),
            *("tidegate_store_bars_stale_total", "tidegate_store_bars_refused_total"),
        }

        def held() -> Samples | None:
            site.say("hard", 2)
            found = probe.metrics()
            # The worker's own store may have spoken last while it still had bars.
            alone = found["pipeline_feedback_queue_depth", "store_coordinator"] == 41
            return found if alone and found["tidegate_partition_paused", site.ticks, "2"] == 1 else None

        held_now = until(held, 20, "the partition is paused")
        assert held_now is not None
        assert held_now["pipeline_rate_scale_factor", site.group] == 0
        assert held_now["pipeline_backpressure_state", site.group] == 2
        assert held_now["tidegate_partition_scale", site.ticks, "1"] == 1
        assert held_now["tidegate_pauses_total",] == 1
        site.tick(60, "B", 2)
        until(lambda: probe.metrics()["tidegate_partition_lag", site.ticks, "2"] == 1, 20, "it lags")
        assert probe.ready, "paused is ready"


@pytest.fixture
def database(postgres: str) -> Iterator[tuple[str, Proxy]]:
    """A database that can be stalled."""
    url = urlsplit(postgres)
    with schema(postgres) as dsn, Proxy(url.hostname or "", url.port or 5432) as proxy:
        yield dsn.replace(f":{url.port}/", f":{proxy.port}/"), proxy


@pytest.mark.postgres
@pytest.mark.covers("overflow")
def test_what_an_overflow_policy_drops_is_counted_by_instrument(
    topics: TestTopics, database: tuple[str, Proxy], tmp_path: Path
) -> None:
    dsn, proxy = database
    site = OpsSite(topics, dsn, tmp_path, proxy)
    produced = 0

    def produce(each: int) -> None:
        nonlocal produced
        producer = Producer({"bootstrap.servers": site.bootstrap})
        for n in range(produced, produced + each):
            for number in range(4):
                start_ns = START_NS + n * 10**9
                bar = a_bar(
                    symbol=f"S{number}",
                    type="1s",
                    start_ns=start_ns,
                    end_ns=start_ns + 10**9,
                    source_partition=number,
                    last_offset=100 + n,
                )
                producer.produce(site.bars, encode_bar(bar), key=bar_key(bar), partition=number)
            producer.poll(0)
        assert producer.flush(30) == 0
        produced += each

    with site.worker(roles="store", overflow="drop_oldest", queue_capacity=100, write_batch=20) as worker:
        probe = site.probe(worker)
        until(lambda: probe.ready, 60, "it is ready")
        produce(5)
        until(lambda: probe.metrics()["tidegate_store_bars_written_total",] == 20, 30, "bars are stored")
        proxy.stall()
        produce(200)

        def counted() -> Samples | None:
            found = probe.metrics()
            return found if found["tidegate_store_bars_taken_total",] == 820 else None

        found = until(counted, 30, "all were taken")
        assert found is not None
        dropped = Counter({key[1]: value for key, value in found.items() if "bars_dropped_total" in key[0]})
        assert set(dropped) == {f"BINANCE:S{n}" for n in range(4)}
        assert {key[2] for key in found if "bars_dropped_total" in key[0]} == {"drop_oldest"}
        assert found["tidegate_store_queue_bars",] + dropped.total() == 800
        assert found["tidegate_store_queue_capacity_bars",] == 100
        assert found["tidegate_store_level",] == 2
        assert found["mdp_sink_dropped_batches_total", "postgresql", "", site.group, "drop_oldest"] > 0
        proxy.resume()
        until(lambda: probe.metrics()["tidegate_store_queue_bars",] == 0, 30, "the rest is stored")
        after = probe.metrics()
        assert after["tidegate_store_bars_written_total",] + dropped.total() == 820
        assert worker.stop() == 0
        told: Counter[str] = Counter()
        for line in worker.events("store.dropped"):
            told.update(line["instruments"])
        assert told == dropped
