"""The topics that should be, read from a file, and how the broker's differ. Asks no broker itself.

[defaults]
partitions = 4
replication = 1

[topics."ticks.v1"]
config = { "retention.ms" = 604800000 }
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import ConfigError
from streams.topics import Topics

#: Where the plan lies in an installation, and where in a checkout.
_FILES = (Path(__file__).with_name("topics.toml"), Path(__file__).parents[1] / "docker" / "topics.toml")

_Count = Annotated[int, Field(ge=1, le=32_767)]
_Value = str | bool | int | float | list[str]
_legal = re.compile(r"[A-Za-z0-9._-]+").fullmatch


class _Defaults(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    partitions: _Count = 4
    replication: _Count = 1


class _Topic(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    partitions: _Count | None = None
    replication: _Count | None = None
    config: dict[str, _Value] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    defaults: _Defaults = _Defaults()
    topics: dict[str, _Topic] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class PlannedTopic:
    """A topic as it should be; `name` is the full one."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActualTopic:
    """A topic as the broker has it, with every setting that it tells."""

    partitions: int
    replication: int
    config: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Create:
    """The topic is not there."""

    topic: PlannedTopic


@dataclass(frozen=True, slots=True)
class SetConfig:
    """Settings that have other values: name to (is, planned). `is` is None where the broker tells none."""

    name: str
    settings: Mapping[str, tuple[str | None, str]]


@dataclass(frozen=True, slots=True)
class Differs:
    """A count that has another value and is left as it is: `what` is partitions or replication."""

    name: str
    what: str
    actual: int
    planned: int

    @property
    def advice(self) -> str:
        """What a person can do about it."""
        if self.what == "replication":
            return "kafka-reassign-partitions changes it, or change the plan"
        grow, shrink = "more would part instruments from their past", "Kafka takes none away"
        why = grow if self.planned > self.actual else shrink
        return f"{why}: change the plan, or make the topic anew"


Change = Create | SetConfig | Differs


def default_file() -> Path:
    """The plan that comes with Tidegate. Raises ConfigError for an installation without it."""
    for path in _FILES:
        if path.is_file():
            return path
    raise ConfigError("this installation has no topics.toml", hint="name one with --file")


def read_plan(path: Path, prefix: str) -> list[PlannedTopic]:
    """The topics of a file, in its order. Raises ConfigError that names file, topic and field."""
    try:
        return parse_plan(path.read_text(encoding="utf-8"), prefix, str(path))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", hint="--file names a TOML file of topics") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None


def parse_plan(text: str, prefix: str, file: str = "topics.toml") -> list[PlannedTopic]:
    """As `read_plan`, from the text itself; every name gets `prefix`."""
    try:
        plan = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file}: {exc}") from None
    except ValidationError as exc:
        raise _explained(exc, file) from None
    return [
        PlannedTopic(
            _full_name(name, prefix, file),
            topic.partitions or plan.defaults.partitions,
            topic.replication or plan.defaults.replication,
            {key: _text(value) for key, value in topic.config.items()},
        )
        for name, topic in plan.topics.items()
    ]


def _full_name(name: str, prefix: str, file: str) -> str:
    full = prefix + name
    if not name or not _legal(full) or len(full) > 249 or full in (".", ".."):
        rule = "up to 249 of A-Z, a-z, 0-9, '.', '_' and '-'"
        raise ConfigError(f"{file}: {full!r} cannot name a topic: {rule}")
    if prefix and name.startswith(prefix):
        raise ConfigError(
            f"{file}: the topic {name!r} would become {full!r}",
            hint=f"names in this file get the prefix {prefix!r} (topic_prefix) by themselves: leave it out",
        )
    return full


def _text(value: _Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def _explained(error: ValidationError, file: str) -> ConfigError:
    """One complaint of pydantic for people; a field that is not known explains best what else is wrong."""
    errors = error.errors(include_url=False, include_context=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    section, *where = (str(part) for part in first["loc"])
    if section == "topics" and not where:
        return ConfigError(f"{file}: it names no topic", hint='write [topics."ticks.v1"]')
    if section == "topics" and len(where) > 1:
        name, *where = where
        section = f'[topics."{name}"] '
    elif where:
        section += "."
    unknown = first["type"] == "extra_forbidden"
    hint = "the file has a section [defaults], and one [topics.NAME] for each topic" if unknown else ""
    if section.startswith("[") and unknown:
        hint = 'a topic has partitions, replication and config; quote its name: [topics."ticks.v1"]'
    if where[:1] == ["config"] and len(where) > 1:
        # What follows the name of the setting are the types that it is none of.
        place = f"{section}config.{where[1]}"
        return ConfigError(f"{file}: {place} should be a string, a number, true, false or a list of strings")
    place = section + ".".join(where)
    return ConfigError(f"{file}: {place}{' is not known' if unknown else ': ' + first['msg']}", hint=hint)


def compare(plan: Iterable[PlannedTopic], actual: Mapping[str, ActualTopic]) -> list[Change]:
    """What it takes to come from `actual` to `plan`, in the order of the plan; empty when they agree.

    Topics and settings that the plan does not name are nobody's business here.
    """
    changes: list[Change] = []
    for topic in plan:
        is_now = actual.get(topic.name)
        if is_now is None:
            changes.append(Create(topic))
            continue
        settings = {
            name: (is_now.config.get(name), value)
            for name, value in topic.config.items()
            if not _same(is_now.config.get(name), value)
        }
        if settings:
            changes.append(SetConfig(topic.name, settings))
        if is_now.partitions != topic.partitions:
            changes.append(Differs(topic.name, "partitions", is_now.partitions, topic.partitions))
        if is_now.replication != topic.replication:
            changes.append(Differs(topic.name, "replication", is_now.replication, topic.replication))
    return changes


def _same(actual: str | None, planned: str) -> bool:
    """Whether two texts are one setting: Java writes 0.0001 as 1.0E-4, and a list in any order."""
    if actual is None or actual == planned:
        return actual == planned
    try:
        return Decimal(actual) == Decimal(planned)
    except InvalidOperation:
        return sorted(part.strip() for part in actual.split(",")) == sorted(
            part.strip() for part in planned.split(",")
        )


def check_replication(changes: Iterable[Change], brokers: int) -> None:
    """Raise ConfigError where a topic to be created wants more copies than there are brokers."""
    for change in changes:
        if isinstance(change, Create) and change.topic.replication > brokers:
            topic, have = change.topic, "1 broker" if brokers == 1 else f"{brokers} brokers"
            raise ConfigError(
                f"{topic.name} is planned with replication {topic.replication}, and the cluster has {have}",
                hint="lower replication in the file, or wait until all brokers are up",
            )


def uneven(
    plan: Iterable[PlannedTopic], actual: Mapping[str, ActualTopic], topics: Topics, ticks: Iterable[str]
) -> dict[str, int]:
    """The partition counts that Tidegate's topics would have, where they are not all equal; else empty.

    Partition p means the same instruments in each of them, so workers refuse to start on such topics.
    """
    own = {topics.bars, topics.dead_letters, topics.state, topics.feedback, topics.rate, *ticks}
    counts = {topic.name: topic.partitions for topic in plan if topic.name in own}
    counts |= {name: topic.partitions for name, topic in actual.items() if name in own}
    return counts if len(set(counts.values())) > 1 else {}
