"""How fast something goes, over the last few seconds."""

from __future__ import annotations

from collections import deque

#: Less than this tells nothing of a rate.
SHORTEST_S = 1.0


class Meter:
    """The rate at which a total grows, by what was noted of it within `window_s` and once before."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._noted: deque[tuple[float, float]] = deque()

    def note(self, total: float, now: float) -> None:
        """The total at a moment; seconds of a clock that only goes forward. A lower total starts anew."""
        noted = self._noted
        if noted and total < noted[-1][1]:
            noted.clear()
        # A note before the window remains: what happened since then happened at some time between.
        while len(noted) > 1 and noted[1][0] <= now - self._window_s:
            noted.popleft()
        if len(noted) < 2 or now - noted[-2][0] >= self._window_s / 50:
            noted.append((now, total))
        else:
            noted[-1] = (now, total)

    def rate(self) -> float | None:
        """Per second; None where too little is known."""
        if not self._noted:
            return None
        (first_s, first), (last_s, last) = self._noted[0], self._noted[-1]
        return (last - first) / (last_s - first_s) if last_s - first_s >= SHORTEST_S else None

    def clear(self) -> None:
        """Forget what was."""
        self._noted.clear()
