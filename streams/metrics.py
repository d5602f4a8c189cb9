"""Every metric: its name, its labels and what it means. Nothing else in Tidegate spells one out.

The machinery counts in plain attributes; `streams.figures` reads them when somebody scrapes, and
`streams.scrape` writes them as Prometheus wants them. The first group has the names and labels of
market-data-pipeline, whose dashboards go on working; what differs in meaning is said in docs/operations.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streams.tally import Tally

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A name as it is scraped: counters end in `_total`; a unit is part of the name."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram: the buckets."""
    by_client: bool = False
    """Whether prometheus-client measures it by itself."""


class Figure(NamedTuple):
    """One value of a metric."""

    metric: Metric
    value: float | Tally
    labels: tuple[str, ...] = ()


_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RECORDS = (1.0, 10.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 50_000.0)
_SINK = ("sink", "tenant", "pipeline")
_PLACE = ("topic", "partition")


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "counter", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "gauge", text, labels)


def _histogram(name: str, text: str, bounds: Sequence[float], *labels: str) -> Metric:
    return Metric(name, "histogram", text, labels, tuple(bounds))


# Under market-data-pipeline's names and labels.
RATE_SCALE = _gauge(
    "pipeline_rate_scale_factor", "Lowest scale of this worker's tick partitions: 0 is paused.", "provider"
)
BACKPRESSURE = _gauge(
    "pipeline_backpressure_state", "Worst level asked of this worker: 0 ok, 1 soft, 2 hard.", "provider"
)
FEEDBACK_QUEUE = _gauge(
    "pipeline_feedback_queue_depth", "Bars waiting in the stores' queues, as they last said.", "source"
)
FEEDBACK_EVENTS = _counter(
    "feedback_events_processed_total", "Feedback events read by the rate controller.", "provider", "level"
)
PULSE_CONSUMED = _counter(
    "pulse_consume_total",
    "Events read from core's event bus; outcome is success, error or duplicate.",
    *("stream", "track", "outcome"),
)
PULSE_LAG = _gauge("pulse_lag_ms", "Age of the last event read from core's event bus, ms.", "stream")
SCHEMA_HITS = _counter("schema_cache_hits_total", "Schemas found in the cache.", "schema")
SCHEMA_MISSES = _counter("schema_cache_misses_total", "Schemas fetched from the registry.", "schema")
SINK_IN = _counter("mdp_sink_batches_in_total", "Batches of bars taken by the store role.", *_SINK)
SINK_COMMITTED = _counter(
    "mdp_sink_batches_committed_total", "Batches acknowledged, all their bars accounted for.", *_SINK
)
SINK_FAILED = _counter(
    "mdp_sink_batches_failed_total", "Batches with a bar that the database cannot have.", *_SINK
)
SINK_ITEMS = _counter("mdp_sink_items_committed_total", "Bars the database committed, or held.", *_SINK)
SINK_RETRIES = _counter("mdp_sink_retries_total", "Attempts at the database that failed.", *_SINK)
SINK_DROPPED = _counter(
    "mdp_sink_dropped_batches_total", "Batches that lost bars as the queue was full.", *_SINK, "reason"
)
SINK_QUEUE = _gauge("mdp_sink_queue_depth", "Bars taken and not yet committed.", *_SINK)
SINK_SECONDS = _histogram(
    "mdp_sink_commit_seconds", "Time of a transaction, retries included.", _SECONDS, *_SINK
)

# The bars role.
TICKS = _counter("tidegate_ticks_total", "Trades read, those that cannot be decoded included.")
ACCEPTED = _counter("tidegate_ticks_accepted_total", "Trades that are in a bar.")
LATE = _counter("tidegate_ticks_late_total", "Trades that came after the grace, whatever became of them.")
DUPLICATES = _counter("tidegate_ticks_duplicate_total", "Trades recognised by their id as read before.")
DROPPED_LATE = _counter("tidegate_ticks_dropped_total", 'Late trades dropped, as late = "drop" says.')
SKIPPED = _counter(
    "tidegate_ticks_skipped_total", "Trades beside a replayed one in its record, applied already."
)
IGNORED = _counter("tidegate_records_ignored_total", "Records without a trade: heartbeats and the like.")
DEAD_LETTERS = _counter(
    "tidegate_dead_letters_total", "Ticks or bars dead-lettered, by role and reason.", "role", "reason"
)
BARS = _counter("tidegate_bars_published_total", "Versions of bars published.")
CHECKPOINT = _histogram(
    "tidegate_checkpoint_seconds", "Time of a partition's commit of bars, state and position.", _SECONDS
)
LANES_LOST = _counter("tidegate_lanes_lost_total", "Partitions lost to another owner or a failed commit.")
PARTITIONS = _gauge("tidegate_partitions_assigned", "Partitions that this worker owns.", "topic")
LAG = _gauge("tidegate_partition_lag", "Offsets not yet worked on, up to the end of the log.", *_PLACE)
SCALE = _gauge("tidegate_partition_scale", "Share of its flow that is let through: 0 to 1.", *_PLACE)
PAUSED = _gauge("tidegate_partition_paused", "1 where nothing is let through, else 0.", *_PLACE)
PAUSES = _counter("tidegate_pauses_total", "Times that a partition was paused.")
FEEDBACK_UNREADABLE = _counter("tidegate_feedback_unreadable_total", "Feedback that could not be read.")
BATCH_RECORDS = _histogram("tidegate_batch_records", "Records that came in one batch.", _RECORDS, "agent")

# The store role.
STORE_QUEUE = _gauge("tidegate_store_queue_bars", "Bars taken and not yet committed by the database.")
STORE_CAPACITY = _gauge("tidegate_store_queue_capacity_bars", "Bars that the queue is meant to hold.")
STORE_LEVEL = _gauge("tidegate_store_level", "Pressure of the queue: 0 ok, 1 soft, 2 hard.")
STORE_UP = _gauge("tidegate_store_up", "1 where the database took the last write, else 0.")
STORE_TAKEN = _counter("tidegate_store_bars_taken_total", "Bars that came, whatever became of them.")
STORE_WRITTEN = _counter("tidegate_store_bars_written_total", "Rows made or changed.")
STORE_STALE = _counter("tidegate_store_bars_stale_total", "Bars that the database had as new, or newer.")
STORE_REFUSED = _counter("tidegate_store_bars_refused_total", "Bars dead-lettered by the store.")
STORE_DROPPED = _counter(
    "tidegate_store_bars_dropped_total",
    "Bars that found the queue full, by instrument and policy.",
    *("instrument", "policy"),
)
STORE_DROPPED_AGAIN = _counter(
    "tidegate_store_bars_undropped_total",
    "Of the dropped, those that a rebalance brings again: subtract them.",
    *("instrument", "policy"),
)
FEEDBACK_SAID = _counter("tidegate_feedback_published_total", "Feedback events published.", "level")

# The worker.
OPERATOR = _gauge(
    "tidegate_operator_paused",
    "1 where an operator has paused a partition of this worker, else 0.",
    "role",
    "partition",
)
CONTROL = _counter(
    "tidegate_control_actions_total", "Actions of operators, by result.", "role", "action", "status"
)
CONTROL_UNREADABLE = _counter(
    "tidegate_control_unreadable_total", "Records on the control topic that could not be read."
)
COMPONENT = _gauge(
    "tidegate_component_state", "Health of a part: 0 healthy, 1 degraded, 2 unhealthy.", "component"
)
READY = _gauge("tidegate_ready", "1 where /readyz says yes, else 0.")
BUILD = _gauge("tidegate_build_info", "Always 1; the labels say what runs.", "version", "python", "roles")

# Of the process, measured by prometheus-client.
PROCESS = tuple(
    Metric(name, "counter" if name.endswith("_total") else "gauge", text, by_client=True)
    for name, text in (
        ("process_resident_memory_bytes", "Resident memory (RSS)."),
        ("process_virtual_memory_bytes", "Virtual memory."),
        ("process_cpu_seconds_total", "CPU time, user and system."),
        ("process_start_time_seconds", "Start of the process, seconds since the epoch."),
        ("process_open_fds", "Open file descriptors."),
        ("process_max_fds", "Most file descriptors there may be."),
    )
)

METRICS: tuple[Metric, ...] = (
    *(value for value in list(globals().values()) if isinstance(value, Metric)),
    *PROCESS,
)
"""All of them, in the order of this module."""

BY_NAME = {metric.name: metric for metric in METRICS}
