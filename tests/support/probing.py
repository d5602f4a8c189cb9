"""Asking a worker over HTTP, as Prometheus and an orchestrator do."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from streams.metrics import BY_NAME
from support.wait import until
from support.workers import Worker

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Name and label values (in the order in which the metric declares them) to value."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name
            for suffix in ("_bucket", "_count", "_sum"):
                name = name.removesuffix(suffix) if name not in BY_NAME else name
            declared = BY_NAME[name].labels if name in BY_NAME else ()
            rest = [value for label, value in sample.labels.items() if label not in declared]
            found[sample.name, *(sample.labels[label] for label in declared), *rest] = sample.value
    return found


class Probe:
    """One worker's endpoint; its `http` setting is 127.0.0.1:0."""

    def __init__(self, worker: Worker) -> None:
        def listening() -> list[dict[str, Any]]:
            assert worker.process.poll() is None, worker.log.read_text()[-3000:]
            return worker.events("http.listening")

        self.url = f"http://{until(listening, 20, 'the worker listens')[0]['address']}"

    def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout_s) as response:  # noqa: S310
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def health(self, path: str = "/healthz") -> tuple[int, dict[str, Any]]:
        """Status and the body's fields."""
        status, body = self.get(path)
        return status, json.loads(body)

    def part(self, name: str) -> dict[str, Any]:
        """One component, its details beside its state."""
        for part in self.health()[1]["components"]:
            if part["name"] == name:
                return {"state": part["state"], **part["details"]}
        raise AssertionError(f"there is no component {name}")

    @property
    def ready(self) -> bool:
        """What /readyz says."""
        return self.health("/readyz")[0] == 200

    def metrics(self) -> Samples:
        """What /metrics says."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return samples(text)


def quickly(probe: Probe, path: str) -> tuple[int, str]:
    """An answer, that nothing has held up."""
    began = time.monotonic()
    answer = probe.get(path)
    assert time.monotonic() - began < 1.0, f"{path} took its time"
    return answer
