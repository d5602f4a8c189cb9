from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError
from streams.bars.types import Late
from streams.settings import ROLES, Settings, TickTopic, load_settings
from streams.store.overflow import Overflow

SECRET = "hunter2"  # noqa: S105


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and no variable but the test's own."""

    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("TIDEGATE_"):
            monkeypatch.delenv(name)


def written(text: str, name: str = "tidegate.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def refusal(config: Path | None = None, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config, **flags)
    return f"{caught.value} {caught.value.hint}"


def test_a_worker_that_is_told_nothing_runs_both_roles_against_a_local_broker() -> None:
    settings = load_settings()
    assert settings.broker == "127.0.0.1:9092"
    assert settings.roles == ROLES
    assert [tick.topic for tick in settings.ticks] == ["md.ticks.v1"]


def test_flags_are_above_variables_and_variables_above_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    written('broker = "file:1"\ngroup = "file"\ntopic_prefix = "file."\n')
    monkeypatch.setenv("TIDEGATE_BROKER", "variable:1")
    monkeypatch.setenv("TIDEGATE_GROUP", "variable")
    settings = load_settings(broker="flag:1")
    assert (settings.broker, settings.group, settings.topic_prefix) == ("flag:1", "variable", "file.")


def test_a_flag_that_was_not_given_leaves_the_word_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_BROKER", "variable:1")
    assert load_settings(broker=None).broker == "variable:1"


def test_the_file_that_is_named_is_read_instead_of_the_one_that_lies_there() -> None:
    written('group = "lies there"\n')
    assert load_settings(written('group = "named"\n', "other.toml")).group == "named"
    assert load_settings().group == "lies there"


def test_a_named_file_that_is_not_there_is_an_error() -> None:
    assert "nowhere.toml: no such file" in refusal(Path("nowhere.toml"))


def test_one_load_does_not_remember_the_file_of_another() -> None:
    load_settings(written('group = "other"\n', "other.toml"))
    assert load_settings().group == "tidegate"


def test_tick_topics_come_from_tables() -> None:
    written(
        '[[ticks]]\ntopic = "spot"\nfeed = "binance"\nvenue = "BINANCE"\nbars = ["1s", "4h"]\n'
        'grace = "500ms"\nlate = "dead-letter"\ndedupe = "off"\n[[ticks]]\ntopic = "perp"\n'
    )
    spot, perp = load_settings().ticks
    assert (spot.topic, spot.feed, spot.venue, spot.late) == ("spot", "binance", "BINANCE", Late.DEAD_LETTER)
    assert (spot.grace, spot.dedupe) == (500_000_000, None)
    assert [bar_type.name for bar_type in spot.spec.bar_types] == ["1s", "4h"]
    assert perp == TickTopic(topic="perp")


def test_tick_topics_come_from_a_variable_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TICKS", '[{"topic": "spot", "grace": "1s"}]')
    assert load_settings().ticks == (TickTopic(topic="spot", grace="1s"),)
    monkeypatch.setenv("TIDEGATE_TICKS", "spot")
    assert "TIDEGATE_TICKS cannot be read: it must be JSON" in refusal()


@pytest.mark.parametrize(
    ("text", "roles"),
    [("bars", ("bars",)), ("store,bars", ("store", "bars")), (" bars , store, ", ("bars", "store"))],
)
def test_roles_are_words_between_commas(
    text: str, roles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(roles=text).roles == roles
    monkeypatch.setenv("TIDEGATE_ROLES", text)
    assert load_settings().roles == roles
    monkeypatch.delenv("TIDEGATE_ROLES")
    written(f"roles = {[*roles]}\n".replace("'", '"'))
    assert load_settings().roles == roles


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "name at least one of bars, store"),
        (" , ", "name at least one of bars, store"),
        ("bars,stor", "'bars' or 'store'"),
        ("bars,bars", "named twice"),
    ],
)
def test_roles_that_make_no_sense_are_refused(text: str, complaint: str) -> None:
    message = refusal(roles=text)
    assert "roles" in message
    assert complaint in message


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("brokers = 'x'\n", ["brokers: there is no such setting"]),
        ("[[ticks]]\ntopics = 'x'\n", ["ticks.0.topics: there is no such setting"]),
        ("queue_capacity = 0\n", ["queue_capacity:", "greater than 0"]),
        ("queue_capacity = 'many'\n", ["queue_capacity:", "valid integer"]),
        ("overflow = 'drop'\n", ["overflow:", "'drop_oldest'", "'error'"]),
        ("checkpoint = '5'\n", ["checkpoint: '5' is not a duration", "such as 500ms"]),
        ("[[ticks]]\nfeed = 'nyse'\n", ["ticks.0: feed 'nyse' is not known: one of", "binance"]),
        ("[[ticks]]\nbars = ['1w']\n", ["ticks.0", "1w"]),
        ("[[ticks]]\nlate = 'never'\n", ["ticks.0.late", "'revise'"]),
        ("[[ticks]]\n[[ticks]]\n", ["a topic is named twice"]),
        ("ticks = []\n", ["name at least one tick topic"]),
        ("soft = 0.9\n", ["soft=0.9, hard=0.8"]),
        ("heartbeat = '10s'\n", ["feedback_ttl must be longer than heartbeat, got 10 s and 10 s"]),
        ("security_protocol = 'TLS'\n", ["security_protocol:", "'SASL_SSL'"]),
        ("broker = \n", ["line 1"]),
        ("broker = 'x'\nqueue_capacity = 0\nbrokers = 1\n", ["queue_capacity:", "brokers:"]),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(text: str, complaints: list[str]) -> None:
    written(text)
    message = refusal()
    assert message.startswith("tidegate.toml: ")
    for complaint in complaints:
        assert complaint in message


def test_what_does_not_fit_waits_unless_somebody_wants_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().overflow is Overflow.block
    written('overflow = "drop_oldest"\n')
    assert load_settings().overflow is Overflow.drop_oldest
    monkeypatch.setenv("TIDEGATE_OVERFLOW", "error")
    assert load_settings().overflow is Overflow.error


def test_an_unknown_flag_is_refused() -> None:
    assert "brokr: there is no such setting" in refusal(brokr="x")


def test_a_login_needs_a_name_and_a_password() -> None:
    assert "needs sasl_username and sasl_password" in refusal(security_protocol="SASL_SSL", sasl_username="u")
    load_settings(security_protocol="SASL_SSL", sasl_username="u", sasl_password=SECRET)


@pytest.mark.parametrize(
    "flags",
    [
        {"queue_capacity": 0},
        {"roles": "nothing"},
        {"security_protocol": "TLS"},
        {"security_protocol": "SASL_PLAINTEXT"},
        {"ticks": "spot"},
        {"unknown": SECRET},
        {"soft": 2.0},
    ],
)
def test_passwords_are_in_no_error(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    written(f'store = "postgresql://tidegate:{SECRET}@db/market"\n')
    monkeypatch.setenv("TIDEGATE_SASL_PASSWORD", SECRET)
    assert SECRET not in refusal(**flags)


@pytest.mark.parametrize("text", ["sasl_password = [1, '{}']", "store = {{ a = '{}' }}", "store = '{}' '"])
def test_a_password_in_the_wrong_shape_is_in_no_error(text: str) -> None:
    written(text.format(SECRET) + "\n")
    assert SECRET not in refusal()


def test_passwords_are_in_no_repr() -> None:
    settings = load_settings(
        store=f"postgresql://tidegate:{SECRET}@db/market",
        security_protocol="SASL_SSL",
        sasl_username="u",
        sasl_password=SECRET,
    )
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in shown
    assert SECRET in settings.store.get_secret_value()


def test_settings_do_not_change() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.broker = "other:1"


def test_every_variable_of_the_example_is_a_setting() -> None:
    """Names that people have in their deployments: renaming one breaks them."""
    for name in ("broker", "store", "roles", "group", "topic_prefix", "ticks", "sasl_password", "ssl_cafile"):
        assert name in Settings.model_fields


def test_the_registry_of_the_pipeline_is_known_under_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_URL", "http://registry:1")
    assert load_settings().registry_url == ""
    monkeypatch.setenv("REGISTRY_ENABLED", "true")
    monkeypatch.setenv("REGISTRY_ENFORCEMENT", "strict")
    monkeypatch.setenv("REGISTRY_CACHE_TTL", "60")
    monkeypatch.setenv("SCHEMA_FALLBACK_TRACK", "")
    settings = load_settings()
    assert (settings.registry_url, settings.registry_mode) == ("http://registry:1", "strict")
    assert (settings.registry_ttl, settings.registry_tracks) == (60 * 10**9, ("v2",))
    monkeypatch.setenv("TIDEGATE_REGISTRY_URL", "http://other:1")
    assert load_settings().registry_url == "http://other:1"
    monkeypatch.setenv("REGISTRY_ENFORCEMENT", "sometimes")
    assert "registry_mode" in refusal()


def test_frames_need_to_know_their_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BARS_FORMAT", "avro"), ("TICKS", '[{"framing": "confluent"}]')):
        monkeypatch.setenv(f"TIDEGATE_{name}", value)
        assert "need schema_registry_url" in refusal()
        monkeypatch.setenv("TIDEGATE_SCHEMA_REGISTRY_URL", "http://registry:8081")
        settings = load_settings()
        monkeypatch.delenv(f"TIDEGATE_{name}")
        monkeypatch.delenv("TIDEGATE_SCHEMA_REGISTRY_URL")
    assert settings.plain_tick_topic("other") is None
    with pytest.raises(ConfigError, match="publishes plain ones"):
        settings.plain_tick_topic("md.ticks.v1")


@pytest.mark.parametrize("http", ["", "127.0.0.1:9464", ":9464", "[::1]:0", "worker-1.example:1"])
def test_an_endpoint_is_an_address_or_nothing(http: str) -> None:
    assert load_settings(http=http).http == http


@pytest.mark.parametrize("http", ["9464", "127.0.0.1", "::1:9464", "host:65536", "host:port", "http://a:1"])
def test_what_is_no_address_is_told_with_an_example(http: str) -> None:
    assert "is not HOST:PORT, such as 127.0.0.1:9464" in refusal(http=http)
