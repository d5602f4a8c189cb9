"""The names that dashboards and alerts hang on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streams.metrics import BY_NAME, METRICS, Metric

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"

_SINK = ("sink", "tenant", "pipeline")

#: As market-data-pipeline 0.8.70 registers them: metrics.py, orchestration/feedback/consumer.py, sink/telemetry.py.
ECOSYSTEM = {
    "pipeline_rate_scale_factor": ("gauge", ("provider",)),
    "pipeline_backpressure_state": ("gauge", ("provider",)),
    "pipeline_feedback_queue_depth": ("gauge", ("source",)),
    "feedback_events_processed_total": ("counter", ("provider", "level")),
    "pulse_consume_total": ("counter", ("stream", "track", "outcome")),
    "pulse_lag_ms": ("gauge", ("stream",)),
    "schema_cache_hits_total": ("counter", ("schema",)),
    "schema_cache_misses_total": ("counter", ("schema",)),
    "mdp_sink_batches_in_total": ("counter", _SINK),
    "mdp_sink_batches_committed_total": ("counter", _SINK),
    "mdp_sink_batches_failed_total": ("counter", _SINK),
    "mdp_sink_items_committed_total": ("counter", _SINK),
    "mdp_sink_queue_depth": ("gauge", _SINK),
    "mdp_sink_commit_seconds": ("histogram", _SINK),
    "mdp_sink_retries_total": ("counter", _SINK),
    "mdp_sink_dropped_batches_total": ("counter", (*_SINK, "reason")),
}


@pytest.mark.covers("metrics")
@pytest.mark.parametrize("name", ECOSYSTEM)
def test_the_dashboards_of_the_pipeline_find_their_metrics(name: str) -> None:
    metric = BY_NAME[name]
    assert (metric.kind, metric.labels) == ECOSYSTEM[name]


def test_buckets_of_the_sink_are_those_of_the_pipeline() -> None:
    bounds = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
    assert BY_NAME["mdp_sink_commit_seconds"].bounds == bounds


def test_no_name_is_there_twice() -> None:
    assert len(BY_NAME) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    assert bool(metric.bounds) == (metric.kind == "histogram")
    ours = metric.name.startswith(("tidegate_", "process_")) or metric.name in ECOSYSTEM
    assert ours, "another name than the ecosystem's begins with tidegate_"


def test_the_docs_have_every_metric_and_no_other() -> None:
    row = r"^\| `([a-z_]+)(?:\{([a-z, ]+)\})?` \| (counter|gauge|histogram) \| (.+) \|$"
    rows = re.findall(row, DOCS.read_text(), re.MULTILINE)
    told = {
        name: (kind, tuple(labels.split(", ")) if labels else (), text) for name, labels, kind, text in rows
    }
    assert told == {metric.name: (metric.kind, metric.labels, metric.help) for metric in METRICS}


def test_machinery_does_not_know_prometheus() -> None:
    packages = ("schemas", "streams", "agents")
    root = Path(__file__).parents[2]
    modules = {
        str(path.relative_to(root))
        for package in packages
        for path in (root / package).rglob("*.py")
        if "prometheus_client" in path.read_text()
    }
    assert modules == {"streams/scrape.py"}
