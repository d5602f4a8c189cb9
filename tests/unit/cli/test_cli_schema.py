from __future__ import annotations

import json

import pytest

from schemas.contracts import SCHEMAS
from support.inprocess import Cli


def test_without_a_name_the_names_are_listed(cli: Cli) -> None:
    names = ["tick", "bar", "feedback", "rate", "dead-letter", "control", "control-audit"]
    assert cli("schema").out.split() == names


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_a_schema_is_json_with_its_dialect_and_a_description(cli: Cli, name: str) -> None:
    schema = json.loads(cli("schema", name).out)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["type"] == "object"
    assert schema["description"]
    assert set(SCHEMAS[name].model_fields) == set(schema["properties"])
