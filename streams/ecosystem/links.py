"""Whether the other side answers: told once when it is lost, and once when it is back."""

from __future__ import annotations

import time

import structlog

log = structlog.get_logger(__name__)


class Link:
    """A connection that is used again and again, whoever is at its other end."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.why = ""
        self._lost_at: float | None = None

    @property
    def away(self) -> bool:
        """Whether the last attempt failed."""
        return self._lost_at is not None

    def lost(self, exc: Exception) -> None:
        """An attempt failed."""
        self.why = str(exc)
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning(f"{self.what}.away", error=self.why, consequence="it is tried again until it answers")

    def answered(self) -> None:
        """An attempt succeeded."""
        if self._lost_at is not None:
            log.info(f"{self.what}.back", away_s=round(time.monotonic() - self._lost_at, 1))
            self._lost_at, self.why = None, ""

    def told(self) -> str:
        """For people who look."""
        if self._lost_at is None:
            return "answers"
        return f"away for {time.monotonic() - self._lost_at:.0f} s: {self.why}"
