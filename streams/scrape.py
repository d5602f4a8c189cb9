"""From figures to what Prometheus reads. The only module that knows its client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from math import isinf

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from streams.metrics import Figure, Metric
from streams.tally import Tally


def families(figures: Iterable[Figure]) -> list[Family]:
    """The figures, those of one metric together."""
    found: dict[Metric, Family] = {}
    for metric, value, labels in figures:
        family = found.get(metric)
        if family is None:
            family = found[metric] = _KINDS[metric.kind](metric.name, metric.help, labels=metric.labels)
        if isinstance(value, Tally):
            buckets = [("+Inf" if isinf(bound) else str(bound), count) for bound, count in value.cumulative()]
            family.add_metric(labels, buckets, value.sum)  # type: ignore[attr-defined]
        else:
            family.add_metric(labels, value)  # type: ignore[attr-defined]
    return list(found.values())


_KINDS: dict[str, Callable[..., Family]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class _Taken(Collector):
    """What was read at one moment."""

    def __init__(self, read: list[Family]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        yield from self._read

    def describe(self) -> list[Family]:
        return []  # or the registry would collect to know the names


class Scrape:
    """Renders what `figures` gives, with what is known of the process."""

    def __init__(self, figures: Callable[[], Iterable[Figure]]) -> None:
        self._figures = figures

    async def __call__(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its content type; `accept` is what the client would like.

        The figures are read in the event loop, in which they change; the text is written beside it.
        """
        read = families(self._figures())
        encode, content_type = choose_encoder(accept)
        return await asyncio.to_thread(_render, read, encode), content_type


def _render(read: list[Family], encode: Callable[[CollectorRegistry], bytes]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Taken(read))
    ProcessCollector(registry=registry)
    return encode(registry)
