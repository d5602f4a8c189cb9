"""How the bus is reached and what goes over it: flags first, then the variables that the ecosystem uses for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from schemas.errors import ConfigError

Direction = Literal["both", "in", "out"]
Track = Literal["v1", "v2"]

REDIS_URL = "redis://localhost:6379/0"
NAMESPACE = "mdp"
GROUP = "pipeline"
#: What market-data-store's publisher appends to the namespace.
STREAM = "telemetry.feedback"
#: For how long a coordinator's last word is repeated. Ten minutes: see `pulse_words`.
HOLD_S = 600.0


@dataclass(frozen=True, slots=True)
class PulseSettings:
    """All of it. `load` reads the environment."""

    redis_url: str = field(default=REDIS_URL, repr=False)  # it may hold a password
    namespace: str = NAMESPACE
    stream: str = f"{NAMESPACE}.{STREAM}"
    group: str = GROUP
    consumer: str = field(default_factory=lambda: f"tidegate-{socket.gethostname()}")
    """Who takes entries from the group; the same after a restart, so that what was left undone is found again."""
    track: Track = "v1"
    direction: Direction = "both"
    partitions: Collection[int] | None = None
    """Of the feedback topic; None: all."""
    hold_s: float = HOLD_S
    enabled: bool = True


def load(
    environment: Mapping[str, str] = os.environ,
    *,
    redis_url: str | None = None,
    namespace: str | None = None,
    stream: str | None = None,
    group: str | None = None,
    track: str | None = None,
    direction: Direction = "both",
    partitions: Collection[int] | None = None,
    hold_s: float = HOLD_S,
) -> PulseSettings:
    """Settings of the bridge to Redis. None is what the environment says: EVENT_BUS_BACKEND, REDIS_URL,
    MD_NAMESPACE, SCHEMA_TRACK and PULSE_ENABLED. Raises ConfigError."""
    backend = environment.get("EVENT_BUS_BACKEND", "redis")
    if redis_url is None and backend != "redis":
        raise ConfigError(
            f"EVENT_BUS_BACKEND is {backend!r}: another process can reach the bus on Redis only",
            hint="set it to redis or name --redis-url; for a bus in memory, see PulseBridge in docs/pulse.md",
        )
    namespace = namespace or environment.get("MD_NAMESPACE") or NAMESPACE
    track = track or environment.get("SCHEMA_TRACK") or "v1"
    if track not in get_args(Track):
        raise ConfigError(f"SCHEMA_TRACK is {track!r}", hint="it must be v1 or v2")
    return PulseSettings(
        redis_url=redis_url or environment.get("REDIS_URL") or REDIS_URL,
        namespace=namespace,
        stream=stream or f"{namespace}.{STREAM}",
        group=group or GROUP,
        track="v2" if track == "v2" else "v1",
        direction=direction,
        partitions=partitions,
        hold_s=hold_s,
        enabled=_enabled(environment.get("PULSE_ENABLED", "true")),
    )


def _enabled(text: str) -> bool:
    # market-data-store takes everything but "true" for no, also "1".
    if (said := text.strip().lower()) in ("true", "1", "yes", "on"):
        return True
    if said in ("false", "0", "no", "off", ""):
        return False
    raise ConfigError(f"PULSE_ENABLED is {text!r}", hint="it must be true or false")
