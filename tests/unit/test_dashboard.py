"""The dashboard shows what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streams.metrics import BY_NAME

DASHBOARD = json.loads((Path(__file__).parents[2] / "docker" / "dashboards" / "tidegate.json").read_text())
QUERIES = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.covers("metrics")
@pytest.mark.parametrize(("title", "target"), QUERIES)
def test_every_query_is_of_metrics_that_exist_and_of_their_labels(title: str, target: dict[str, str]) -> None:
    query = target["expr"]
    found = {
        name.removesuffix("_bucket"): name
        for name in re.findall(r"\b(?:tidegate|pipeline|mdp|process|feedback)_[a-z_]+", query)
    }
    assert found, title
    labels = {"instance", "le"}
    for name, asked in found.items():
        assert name in BY_NAME, f"{title}: {name}"
        assert (asked != name) == (BY_NAME[name].kind == "histogram")
        assert ("rate(" in query or "increase(" in query) == (BY_NAME[name].kind != "gauge")
        labels |= set(BY_NAME[name].labels)
    used = {label.strip() for names in re.findall(r"by \(([a-z, ]+)\)", query) for label in names.split(",")}
    used |= set(re.findall(r"\{\{([a-z]+)\}\}", target["legendFormat"]))
    assert used <= labels, title


def test_panels_do_not_overlap() -> None:
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})
