"""The level of a bounded queue, with hysteresis."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.feedback import Level


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fill ratios (queue size / capacity) at which the level changes.

    ``soft`` begins at `soft` and ends `hysteresis` below it; ``hard`` begins at `hard` and lasts
    until the fill is back at `soft`.
    """

    soft: float = 0.5
    hard: float = 0.8
    hysteresis: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.hysteresis < self.soft < self.hard <= 1:
            raise ValueError(
                f"thresholds must satisfy 0 <= hysteresis < soft < hard <= 1, "
                f"got hysteresis={self.hysteresis}, soft={self.soft}, hard={self.hard}"
            )


def next_level(level: Level, fill: float, thresholds: Thresholds) -> Level:
    """The level that follows `level` at this fill. Pure."""
    if fill >= thresholds.hard or (level is Level.hard and fill > thresholds.soft):
        return Level.hard
    if fill >= thresholds.soft or (level is not Level.ok and fill > thresholds.soft - thresholds.hysteresis):
        return Level.soft
    return Level.ok
