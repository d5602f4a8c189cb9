"""What a worker is told: flags above ``TIDEGATE_*`` variables above ``tidegate.toml``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from schemas.codecs import FEEDS
from schemas.errors import ConfigError
from schemas.feedback import Level
from streams.address import parse_address
from streams.bars.types import BarSpec, BarType, Late
from streams.durations import DurationNs, DurationNsOrOff
from streams.flow.pressure import Thresholds
from streams.store.overflow import Overflow

_Scale = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Role = Literal["bars", "store"]
ROLES: tuple[Role, ...] = ("bars", "store")


class TickTopic(BaseModel):
    """A topic of ticks: what is on it and which bars come out of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = "md.ticks.v1"
    feed: str = Field("tidegate", description=f"the shape of its messages: {', '.join(FEEDS)}")
    venue: str = Field("", description="the venue of its instruments, where the messages name none")
    bars: tuple[str, ...] = Field(("1s", "1m"), description="bar types: Ns, Nm, Nh or Nd")
    grace: DurationNs = Field(2 * 10**9, ge=0, description="how much later than others a tick may come")
    late: Late = Field(Late.REVISE, description="what becomes of a later one: revise, dead-letter or drop")
    retain: DurationNs = Field(300 * 10**9, ge=0, description="how long a closed bar can be revised")
    dedupe: DurationNsOrOff = Field(360 * 10**9, description="how long a trade id is remembered, or off")
    max_future: DurationNs = Field(10 * 10**9, ge=0, description="how far a tick may be ahead of its receipt")
    idle: DurationNs = Field(5 * 10**9, gt=0, description="publish a quiet instrument's bars after this")
    lost: Literal["stop", "skip"] = Field(
        "stop", description="where ticks were deleted before they were read: stop, or go on without them"
    )
    source: str = Field("", description="what bars name as their source, where it is not the topic")

    framing: Literal["none", "confluent"] = Field(
        "none", description="whether a value begins with the id of its schema in schema_registry_url"
    )

    @model_validator(mode="after")
    def _check(self) -> TickTopic:
        if self.feed not in FEEDS:
            raise ValueError(f"feed {self.feed!r} is not known: one of {', '.join(FEEDS)}")
        _ = self.spec
        return self

    @property
    def spec(self) -> BarSpec:
        """The same, as the bar engine takes it."""
        return BarSpec(
            bar_types=tuple(BarType.parse(name) for name in self.bars),
            grace_ns=self.grace,
            late=self.late,
            retain_ns=self.retain,
            dedupe_ns=self.dedupe,
            max_future_ns=self.max_future,
            idle_ns=self.idle,
        )


class Settings(BaseSettings):
    """All settings of a worker."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="forbid", frozen=True)

    broker: str = Field("127.0.0.1:9092", description="bootstrap servers, HOST:PORT[,HOST:PORT...]")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None

    group: str = Field("tidegate", description="consumer groups are GROUP-bars and GROUP-store")
    topic_prefix: str = Field("md.", description="what the names of Tidegate's own topics begin with")
    ticks: tuple[TickTopic, ...] = (TickTopic(),)
    roles: Annotated[tuple[Role, ...], NoDecode] = ROLES

    store: SecretStr = SecretStr("duckdb:tidegate.duckdb")
    queue_capacity: int = Field(20_000, gt=0, description="bars that may wait for the store")
    overflow: Overflow = Field(
        Overflow.block,
        description="bars that find the queue full: block, drop_oldest, drop_newest or error",
    )
    write_batch: int = Field(5_000, gt=0, description="bars written to the store in one transaction")
    store_timeout: DurationNs = Field(
        300 * 10**9, gt=0, description="after this a write over the network is given up, and tried with less"
    )
    write_linger: DurationNs = Field(50 * 10**6, ge=0, description="how long a small batch waits for more")
    soft: float = 0.5
    hard: float = 0.8
    hysteresis: float = 0.1
    policy: str = Field(
        "step",
        description="from pressure to consumption: step, linear, aimd, drain, or MODULE:CLASS of your own",
    )
    scale_ok: _Scale = Field(
        1.0, description="what share is consumed under step; also MDP_FB_SCALE_OK, and so on"
    )
    scale_soft: _Scale = 0.5
    scale_hard: _Scale = Field(0.0, description="under every policy, while the store can take no more")
    heartbeat: DurationNs = Field(10**9, gt=0, description="how often feedback is repeated")
    feedback_ttl: DurationNs = Field(10 * 10**9, gt=0, description="after this a silent store counts no more")
    follow_lag: bool = Field(
        True, description="slow down where GROUP-store leaves bars unread until their retention nears its end"
    )
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once", description="whether the store waits until bars are committed, with their state"
    )
    checkpoint: DurationNs = Field(10**9, gt=0, description="how often bars, state and offsets are committed")
    checkpoint_bytes: int = Field(
        16 << 20, gt=0, description="commit earlier when so many bytes of a partition's output wait for it"
    )
    session_timeout: DurationNs = Field(30 * 10**9, gt=0)
    drain_timeout: DurationNs = Field(20 * 10**9, gt=0, description="how long a stop may take to drain")
    registry_url: str = Field("", description="the ecosystem's schema registry, such as http://host:8080")
    registry_token: SecretStr | None = None
    registry_mode: Literal["off", "warn", "strict"] = Field(
        "warn", description="messages that do not fit: not looked at, logged, or refused"
    )
    registry_fail: Literal["open", "closed"] = Field(
        "open", description="where no schema can be had: go on without looking, or refuse"
    )
    registry_tracks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("v2", "v1"), description="the preferred track first"
    )
    registry_ttl: DurationNs = Field(300 * 10**9, gt=0, description="how often schemas are fetched anew")
    registry_timeout: DurationNs = Field(5 * 10**9, gt=0)
    registry_cache: Path | None = Field(None, description="a folder that keeps schemas for the next start")
    schema_registry_url: str = Field(
        "", description="Kafka's schema registry (Confluent's API), such as http://host:8081"
    )
    schema_registry_user: str = ""
    schema_registry_password: SecretStr | None = None
    schema_registry_ca: Path | None = Field(None, description="a file of certificates to trust there")
    schema_registry_register: bool = Field(
        True, description="register the schema of bars; false: it must be there already"
    )
    bars_format: Literal["json", "avro", "jsonschema"] = Field(
        "json", description="bars as plain JSON, or framed with the id of a registered schema"
    )
    health_file: Path | None = Field(None, description="touched every second while the worker is alive")
    http: str = Field(
        "", description="HOST:PORT of /metrics, /healthz and /readyz; port 0 is any free one, empty is none"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("roles", "registry_tracks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if not self.ticks:
            raise ValueError("ticks: name at least one tick topic")
        if not self.roles:
            raise ValueError(f"roles: name at least one of {', '.join(ROLES)}")
        if len(set(self.roles)) != len(self.roles):
            raise ValueError("roles: a role is named twice")
        if not self.registry_tracks:
            raise ValueError("registry_tracks: name at least one, such as v2")
        names = [t.topic for t in self.ticks]
        if len(set(names)) != len(names):
            raise ValueError("ticks: a topic is named twice")
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs sasl_username and sasl_password"
            )
        framed = self.bars_format != "json" or any(t.framing != "none" for t in self.ticks)
        if framed and not self.schema_registry_url:
            raise ValueError("framing and bars_format need schema_registry_url")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("ssl_keyfile needs ssl_certfile")
        _ = self.thresholds
        if self.http:
            parse_address(self.http)
        if not self.scale_ok >= self.scale_soft >= self.scale_hard:
            raise ValueError(
                f"scales must not rise with the pressure, got scale_ok={self.scale_ok:g}, "
                f"scale_soft={self.scale_soft:g}, scale_hard={self.scale_hard:g}"
            )
        if self.feedback_ttl <= self.heartbeat:
            raise ValueError(
                f"feedback_ttl must be longer than heartbeat, got {self.feedback_ttl / 1e9:g} s and "
                f"{self.heartbeat / 1e9:g} s: pauses would end between two words of the store"
            )
        return self

    def tick_topic(self, name: str) -> TickTopic | None:
        """What is said about a topic of ticks, if anything is."""
        return next((tick for tick in self.ticks if tick.topic == name), None)

    def plain_tick_topic(self, name: str) -> TickTopic | None:
        """The same, for who publishes plain messages. Raises `ConfigError` where they must be framed."""
        found = self.tick_topic(name)
        if found is not None and found.framing != "none":
            raise ConfigError(
                f"{name} carries records framed with the id of a schema, and this publishes plain ones",
                hint='name a topic with framing = "none"',
            )
        return found

    @property
    def thresholds(self) -> Thresholds:
        """Where the store's queue is soft and hard."""
        return Thresholds(self.soft, self.hard, self.hysteresis)

    @property
    def scales(self) -> Mapping[Level, float]:
        """What share of the unhindered consumption each level leaves."""
        return {Level.ok: self.scale_ok, Level.soft: self.scale_soft, Level.hard: self.scale_hard}

    @property
    def transaction_s(self) -> float:
        """How long the broker waits for the end of a transaction: for longer than a checkpoint may take."""
        return max(60.0, 3 * self.checkpoint / 1e9)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        ecosystem = _EcosystemSource(settings_cls)
        return init_settings, env_settings, ecosystem, TomlConfigSettingsSource(settings_cls, _config_file)


class _EcosystemSource(EnvSettingsSource):
    """Variables under which those know a setting who come from market-data-pipeline; TIDEGATE_* go first."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, env_prefix="MDP_FB_")

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name: value
            for name, value in super()._load_env_vars().items()
            if name.lower().startswith("mdp_fb_scale_")
        }

    def __call__(self) -> dict[str, Any]:
        return {**_pipeline_registry(os.environ), **super().__call__()}


def _pipeline_registry(variables: Mapping[str, str]) -> dict[str, Any]:
    """How market-data-pipeline is told of its registry: it counts there where REGISTRY_ENABLED is true."""
    if variables.get("REGISTRY_ENABLED", "").lower() != "true":
        return {}
    tracks = (variables.get("SCHEMA_PREFER_TRACK", "v2"), variables.get("SCHEMA_FALLBACK_TRACK", "v1"))
    found = {
        "registry_url": variables.get("REGISTRY_URL"),
        "registry_token": variables.get("REGISTRY_TOKEN"),
        "registry_mode": variables.get("REGISTRY_ENFORCEMENT"),
        "registry_tracks": ",".join(filter(None, tracks)),
        "registry_ttl": _seconds(variables.get("REGISTRY_CACHE_TTL")),
        "registry_timeout": _seconds(variables.get("REGISTRY_TIMEOUT")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _seconds(text: str | None) -> str | None:
    return None if text is None else f"{text}s"


_config_file: Path | None = None


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags (those that are not None), the environment and the file, in this order.

    Without `config`, ``tidegate.toml`` in the working directory is read where it exists. Raises
    `ConfigError` naming the file, the field and what is wrong; never a value that may be secret.
    """
    global _config_file  # pydantic-settings takes the file from the class, not from the call
    _config_file = config or (Path("tidegate.toml") if Path("tidegate.toml").exists() else None)
    if config is not None and not config.is_file():
        raise ConfigError(f"{config}: no such file", hint="--config names a TOML file; see README.md")
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as exc:
        problems = "; ".join(_describe(error) for error in exc.errors())
        raise ConfigError(f"{_config_file or 'settings'}: {problems}") from None
    except SettingsError as exc:
        field = re.search(r'field "(\w+)"', str(exc))
        raise ConfigError(
            f"TIDEGATE_{field[1].upper() if field else '*'} cannot be read: it must be JSON"
        ) from None
    except ValueError as exc:  # TOML that does not parse
        raise ConfigError(f"{_config_file or 'settings'}: {exc}") from None


def _describe(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such setting"
    return f"{where}: {message}" if where else message
