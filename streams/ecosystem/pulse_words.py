"""What was said last, by whom, and whether it still holds: the state of a bridge. Pure; times are passed in.

A store of the ecosystem speaks when its level changes, and never again; in Tidegate, who is silent for
`feedback_ttl` no longer counts. So the bridge repeats the last word of each coordinator (`Words`). It cannot see
whether that store lives: nothing on the bus tells. It therefore repeats `soft` and `hard` for as long as `hold_s`
after they were said, and not longer, so that a store that died while it was full does not stop the ticks for ever.
An operator ends it at any time by an `ok` in the coordinator's name (``tidegate bridge release``).

The other way round the stores of Tidegate repeat themselves every second, and listeners on the bus expect to be
told of changes only (`Changes`); who goes silent is told to be `ok`, as it is in Tidegate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from market_data_core.telemetry import BackpressureLevel, FeedbackEvent

from schemas.feedback import Feedback, Level

#: The source of what Tidegate's stores say, on the bus.
TIDEGATE = "tidegate"
#: The source of what was heard on the bus, on the feedback topic.
PULSE = "pulse"

#: Places of entries in their stream: comparable, whatever the bus.
Order = tuple[int, ...]

_SEVERITY = {Level.ok: 0, Level.soft: 1, Level.hard: 2}


@dataclass(slots=True)
class Word:
    """The last word of a coordinator on the bus."""

    event: FeedbackEvent
    headers: Mapping[str, str]
    order: Order
    at: float
    """When it was said, by the clock that is passed in."""
    told: bool = False
    """Whether Kafka has it."""


class Words:
    """The last word of each coordinator, to be told once, and repeated while it holds."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self._words: dict[str, Word] = {}

    def hear(self, word: Word, now: float) -> bool:
        """Take a word; False if it is no news: not later than what is known, or said before it could hold."""
        known = self._words.get(word.event.coordinator_id)
        if known is not None and word.order <= known.order:
            return False
        if word.at < now - self.hold_s:
            return False
        self._words[word.event.coordinator_id] = word
        return True

    def untold(self, now: float) -> list[Word]:
        """What has not been told, in the order in which it was said."""
        return self._due(now, repeat=False)

    def due(self, now: float) -> list[Word]:
        """What is to be told, or told again."""
        return self._due(now, repeat=True)

    def _due(self, now: float, *, repeat: bool) -> list[Word]:
        words = [word for word in self._words.values() if word.at >= now - self.hold_s]
        due = [word for word in words if not word.told or (repeat and _holds_back(word.event))]
        return sorted(due, key=lambda word: word.order)

    def ended(self, now: float) -> list[Word]:
        """Forget what holds no more; gives those that are no longer repeated."""
        over = [key for key, word in self._words.items() if word.at < now - self.hold_s]
        return [word for word in map(self._words.pop, over) if _holds_back(word.event)]

    def holding(self, now: float) -> dict[str, Level]:
        """Who holds the ticks back."""
        return {
            word.event.coordinator_id: Level(word.event.level.value)
            for word in self.due(now)
            if _holds_back(word.event)
        }


def _holds_back(event: FeedbackEvent) -> bool:
    return event.level is not BackpressureLevel.ok


@dataclass(slots=True)
class _Store:
    """A store of Tidegate: what it said of each partition, and what the bus was told of it."""

    heard: dict[int, tuple[Feedback, float]] = field(default_factory=dict)
    told: FeedbackEvent | None = None


class Changes:
    """What listeners on the bus must be told of Tidegate's stores."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._stores: dict[str, _Store] = {}
        self._began: float | None = None

    def hear(self, feedback: Feedback, now: float) -> None:
        """Take note of what a store says of one partition."""
        heard = self._stores.setdefault(feedback.coordinator_id, _Store()).heard
        known = heard.get(feedback.partition)
        if known is None or (known[0].epoch, known[0].ts) <= (feedback.epoch, feedback.ts):
            heard[feedback.partition] = feedback, now

    def told(self, event: FeedbackEvent) -> None:
        """Take note of what the bus was told, by this bridge or another one of the same cluster."""
        self._stores.setdefault(event.coordinator_id, _Store()).told = event

    def due(self, now: float) -> list[tuple[FeedbackEvent, str | None]]:
        """What to tell, and the reason where it is not the store's own word. `now` is epoch seconds."""
        self._began = now if self._began is None else self._began
        due: list[tuple[FeedbackEvent, str | None]] = []
        for coordinator_id, store in list(self._stores.items()):
            live = [feedback for feedback, at in store.heard.values() if at >= now - self._ttl_s]
            told = store.told
            if live:
                event = _worst(live)
                if told is None or told.level is not event.level:
                    due.append((event, None))
            elif told is not None and _holds_back(told):
                # What was said before the bridge began may be said again: it has a moment for that.
                if now - self._began > self._ttl_s:
                    silent = {"level": BackpressureLevel.ok, "queue_size": 0, "ts": now}
                    due.append((told.model_copy(update=silent), "silent"))
            elif now - self._began > self._ttl_s:
                del self._stores[coordinator_id]
        return due


def _worst(live: list[Feedback]) -> FeedbackEvent:
    worst = max(live, key=lambda feedback: (_SEVERITY[feedback.level], feedback.ts))
    return FeedbackEvent(
        coordinator_id=worst.coordinator_id,
        queue_size=worst.queue_size,
        capacity=worst.capacity,
        level=BackpressureLevel(worst.level.value),
        source=TIDEGATE,
        ts=worst.ts,
    )
