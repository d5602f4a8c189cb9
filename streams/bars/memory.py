"""What is remembered for a while."""

from __future__ import annotations

from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
_ROOM = 32


class Memory(Generic[K, V]):
    """A dict in order of insertion that forgets in bulk, so at a constant cost per insertion.

    What has expired may still be found: whoever looks something up also judges whether it counts. The hot
    path inserts new keys into `entries` itself and sees to `keep` when there are more than `room`.
    """

    __slots__ = ("_saved", "entries", "room")

    def __init__(self) -> None:
        self.entries: dict[K, V] = {}
        self.room = _ROOM
        self._saved = 0

    def put(self, key: K, value: V) -> None:
        """Insert at the end, whether it is known or not."""
        if key in self.entries:
            self.remove(key)
        self.entries[key] = value

    def remove(self, key: K) -> None:
        """Forget one key, so that it can be inserted at the end."""
        del self.entries[key]
        self._saved = max(0, self._saved - 1)

    def wait(self) -> None:
        """Keep all, because the oldest is still of use. The next time is when there are twice as many."""
        self.room = 2 * len(self.entries) + _ROOM

    def keep(self, entries: dict[K, V]) -> None:
        """Keep only these of the entries, in their order. The next time is when they have doubled."""
        self._saved = sum(map(entries.__contains__, islice(self.entries, self._saved)))
        self.entries = entries
        self.room = 2 * len(entries) + _ROOM

    def unsaved(self) -> tuple[list[K], list[V]]:
        """At least everything inserted since the last `save`, oldest first: keys, and their values."""
        new = len(self.entries) - self._saved
        if not new:
            return [], []
        keys = list(islice(reversed(self.entries), new))
        values = list(islice(reversed(self.entries.values()), new))
        keys.reverse()
        values.reverse()
        return keys, values

    def save(self) -> None:
        """Note that everything so far is in rows of the state."""
        self._saved = len(self.entries)

    def unsave(self) -> None:
        """Let everything be inserted since the last `save`."""
        self._saved = 0
