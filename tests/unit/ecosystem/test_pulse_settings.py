"""Where the bus is: flags, then the ecosystem's variables, then its defaults."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from streams.ecosystem.pulse_settings import load

pytestmark = pytest.mark.covers("pulse bridge")


def test_without_anything_it_is_what_the_store_takes() -> None:
    settings = load({})
    assert settings.redis_url == "redis://localhost:6379/0"
    assert (settings.namespace, settings.stream) == ("mdp", "mdp.telemetry.feedback")
    assert (settings.group, settings.track, settings.enabled) == ("pipeline", "v1", True)


def test_the_variables_of_the_ecosystem_are_read_and_flags_beat_them() -> None:
    variables = {
        "EVENT_BUS_BACKEND": "redis",
        "REDIS_URL": "redis://r/1",
        "MD_NAMESPACE": "prod",
        "SCHEMA_TRACK": "v2",
    }
    settings = load(variables)
    assert (settings.redis_url, settings.namespace, settings.track) == ("redis://r/1", "prod", "v2")
    assert settings.stream == "prod.telemetry.feedback"
    flagged = load(
        {**variables, "EVENT_BUS_BACKEND": "inmem"},
        redis_url="redis://f/2",
        namespace="test",
        stream="s",
        track="v1",
    )
    assert (flagged.redis_url, flagged.namespace, flagged.track) == ("redis://f/2", "test", "v1")
    assert flagged.stream == "s"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"EVENT_BUS_BACKEND": "inmem"}, "EVENT_BUS_BACKEND is 'inmem'"),
        ({"EVENT_BUS_BACKEND": "kafka"}, "EVENT_BUS_BACKEND is 'kafka'"),
        ({"SCHEMA_TRACK": "v3"}, "SCHEMA_TRACK is 'v3'"),
        ({"PULSE_ENABLED": "maybe"}, "PULSE_ENABLED is 'maybe'"),
    ],
)
def test_what_cannot_be_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load(variables)
    assert raised.value.hint


@pytest.mark.parametrize(("text", "enabled"), [("true", True), ("1", True), ("False", False), ("0", False)])
def test_pulse_can_be_switched_off(text: str, enabled: bool) -> None:
    assert load({"PULSE_ENABLED": text}).enabled is enabled


def test_the_password_is_in_no_text_of_it() -> None:
    assert "secret" not in repr(load({"REDIS_URL": "redis://:secret@r/0"}))
