"""From the pressure of a store to the scale of a partition. Pick one with `policy`, or name a class of your own.

    # tidegate.toml
    policy = "mine:Gentle"

    # mine.py, importable by the worker
    class Gentle:
        def __init__(self, settings): ...
        def scale(self, feedback, scale, elapsed_s):
            return 1.0 - feedback.queue_size / feedback.capacity

A policy is asked about each live coordinator of a partition, at each feedback and once a second; the lowest answer
holds. It must not count how often it is asked: feedback is repeated, and comes twice.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from math import exp, isnan
from typing import TYPE_CHECKING, Protocol

import structlog

from schemas.errors import ConfigError
from schemas.feedback import Feedback, Level

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger(__name__)

#: What AIMD adds in a second, and the share that it leaves of a scale after one.
INCREASE, DECREASE = 0.1, 0.5

#: Neither AIMD nor the drain policy goes lower by itself: from nothing, nothing can be learnt.
LOWEST = 0.02

#: How soon the drain policy goes where it aims, and at which fill of the queue below `soft`.
SETTLE_S = 2.0
AIM = 0.8

#: Where it goes up to 1 and has come so far, it is there: it would come closer and closer for ever, and a partition
#: that is not open altogether takes what is produced, but none of its backlog.
OPEN = 0.95

#: Errors of a user's policy that are told, each once.
_MOST_SAID = 10


class Policy(Protocol):
    """What a partition may consume."""

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        """The scale from now on, 0 to 1, by the latest word of a coordinator.

        `scale` is the one until now, for `elapsed_s` seconds. Steps that are made one after the other must lead
        where one step of the same time does.
        """


class Step:
    """A scale for each level: `scale_ok`, `scale_soft`, `scale_hard`."""

    def __init__(self, settings: Settings) -> None:
        self._scales = settings.scales

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        return self._scales[feedback.level]


class Linear:
    """The fuller the queue, the less: all until where `soft` ends, nothing from `hard` on."""

    def __init__(self, settings: Settings) -> None:
        self._scales = settings.scales
        self._first, self._last = settings.soft - settings.hysteresis, settings.hard

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        if feedback.level is Level.hard:  # the database may be away, and the queue empty
            return self._scales[Level.hard]
        fill = feedback.queue_size / feedback.capacity
        return min(1.0, max(0.0, (self._last - fill) / (self._last - self._first)))


class Aimd:
    """Additive increase while `ok`, multiplicative decrease while `soft`: as TCP finds its share (RFC 5681)."""

    def __init__(self, settings: Settings) -> None:
        self._scales = settings.scales

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        match feedback.level:
            case Level.hard:
                return self._scales[Level.hard]
            case Level.soft:
                return max(LOWEST, scale * float(DECREASE**elapsed_s))
            case Level.ok:
                return min(1.0, scale + INCREASE * elapsed_s)


class Drain:
    """As many bars as the database takes, by what it takes, what comes in, and a queue that is filled halfway."""

    def __init__(self, settings: Settings) -> None:
        self._scales = settings.scales
        self._aim = settings.soft * AIM

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        if feedback.level is Level.hard:
            return self._scales[Level.hard]
        fill = feedback.queue_size / feedback.capacity
        if feedback.drain_rate is None or not feedback.arrival_rate or fill < self._aim / 2:
            wanted = 1.0  # what is written a little at a time says nothing of what could be
        else:
            balance = scale * feedback.drain_rate / feedback.arrival_rate
            wanted = min(1.0, max(LOWEST, balance * (2 - fill / self._aim)))
        found = wanted + (scale - wanted) * exp(-elapsed_s / SETTLE_S)
        return 1.0 if wanted == 1 and found >= OPEN else max(LOWEST, found)


POLICIES: Mapping[str, type[Step | Linear | Aimd | Drain]] = {
    "step": Step,
    "linear": Linear,
    "aimd": Aimd,
    "drain": Drain,
}


def policy_of(settings: Settings) -> Policy:
    """The policy that the settings name. Raises `ConfigError` where there is none."""
    name = settings.policy
    if name in POLICIES:
        return POLICIES[name](settings)
    module, _, attribute = name.partition(":")
    hint = f"policy is one of {', '.join(POLICIES)}, or MODULE:CLASS of your own, which the worker can import"
    if not module or not attribute:
        raise ConfigError(f"policy: {name!r} is not known", hint=hint)
    try:
        made = getattr(importlib.import_module(module), attribute)(settings)
    except Exception as exc:  # somebody else's code, and all that can be wrong with it
        raise ConfigError(
            f"policy: {name!r} cannot be made: {type(exc).__name__}: {exc}", hint=hint
        ) from None
    if not callable(getattr(made, "scale", None)):
        raise ConfigError(f"policy: {name!r} has no method scale(feedback, scale, elapsed_s)", hint=hint)
    return _Own(name, made, Step(settings))


class _Own:
    """A user's policy; where it fails there is another one."""

    def __init__(self, name: str, policy: Policy, instead: Policy) -> None:
        self._name = name
        self._policy = policy
        self._instead = instead
        self._said: set[str] = set()

    def scale(self, feedback: Feedback, scale: float, elapsed_s: float) -> float:
        try:
            asked = float(self._policy.scale(feedback, scale, elapsed_s))
            if not isnan(asked):
                return asked
            error = "its scale is not a number"
        except Exception as exc:  # it must not take the worker with it
            error = f"{type(exc).__name__}: {exc}"
        if error not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(error)
            log.error("policy.failed", policy=self._name, error=error, instead="step")
        return self._instead.scale(feedback, scale, elapsed_s)
