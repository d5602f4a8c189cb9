"""Which trades have counted, by their ids."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from streams.bars.memory import Memory
from streams.bars.replays import is_replayed

_MOST: Final = 2**63 - 1
_ROOM: Final = 32


class Unsaved(NamedTuple):
    """Trade ids and, one by one, the watermarks when they counted: 64-bit numbers that ascend, and all others."""

    ids: array[int]
    marks_ns: array[int]
    others: list[str | int]
    others_ns: list[int]


class Seen:
    """The ids of the trades that counted, each with the watermark when it did.

    Venues number their trades upwards. What comes in ascending order is kept in two arrays, at 16 bytes an id;
    all else, text and what is out of order, in a dict. That is asked first, for there is what counted again.
    What has expired may still be found: whoever looks an id up also judges whether it counts.
    """

    __slots__ = ("_ids", "_marks_ns", "_others", "_room", "_saved")

    def __init__(self) -> None:
        self._ids = array("q")
        self._marks_ns = array("q")
        """Never descending, as the watermark is."""
        self._others: Memory[str | int, int] = Memory()
        self._room = _ROOM
        self._saved = 0
        """How many of the arrays are in state rows that are written once."""

    def __len__(self) -> int:
        return len(self._ids) + len(self._others.entries)

    def get(self, key: str | int) -> int | None:
        """What the watermark was when it counted last; None where that is not known."""
        found = self._others.entries.get(key)
        ids = self._ids
        if found is None and type(key) is int and ids and ids[0] <= key <= ids[-1]:
            at = bisect_left(ids, key)
            if ids[at] == key:
                return self._marks_ns[at]
        return found

    def put(self, key: str | int, mark_ns: int) -> None:
        """Insert it, whether it is known or not."""
        if type(key) is int and self._is_next(key, mark_ns) and key <= _MOST:
            self._ids.append(key)
            self._marks_ns.append(mark_ns)
        else:
            self._others.put(key, mark_ns)

    def enter(self, key: str | int, mark_ns: int, since_ns: int) -> bool:
        """Insert it, unless it counted when the watermark was at least `since_ns`; if it did, false."""
        ids = self._ids
        others = self._others.entries
        # Nearly all ascend; the watermark does not descend.
        if key.__class__ is int and (ids[-1] if ids else -1) < key <= _MOST and key not in others:
            ids.append(key)
            self._marks_ns.append(mark_ns)
            return True
        seen_ns = self.get(key)
        if seen_ns is not None and seen_ns >= since_ns:
            return False
        self.put(key, mark_ns)
        return True

    def extend(self, ids: memoryview, marks_ns: memoryview, rising: int, floor_ns: int) -> bool:
        """`extend_any` of 64-bit numbers from 0 on, where first come so many that are above all before them.

        The marks of these do not descend; `floor_ns` is counted for those that are lower.
        """
        others = self._others.entries
        if others and not others.keys().isdisjoint(ids):
            return False
        known = 0
        if self._ids and self._ids[-1] >= ids[0]:
            known = bisect_right(ids, self._ids[-1], 0, rising)
        behind = [*ids[:known], *ids[rising:]]
        if behind:
            if len(set(ids)) < len(ids) or any(self.get(key) is not None for key in behind):
                return False
            marks_of_these = [max(mark_ns, floor_ns) for mark_ns in (*marks_ns[:known], *marks_ns[rising:])]
            others.update(zip(behind, marks_of_these, strict=True))
        self._ids.frombytes(ids[known:rising].cast("B"))
        low = bisect_left(marks_ns, floor_ns, known, rising)
        self._marks_ns.extend([floor_ns] * (low - known))
        self._marks_ns.frombytes(marks_ns[low:rising].cast("B"))
        return True

    def extend_any(self, ids: Sequence[str | int], marks_ns: Sequence[int]) -> bool:
        """Insert ids in the order in which they came, if none is known and none comes twice; if not, nothing."""
        others = self._others.entries
        entries = dict(zip(ids, marks_ns, strict=True))
        if len(entries) < len(ids) or not others.keys().isdisjoint(entries):
            return False
        if set(map(type, ids)) == {str}:
            others.update(entries)
            return True
        if self._ids and any(self.get(key) is not None for key in entries):
            return False
        for key, mark_ns in entries.items():
            self.put(key, mark_ns)
        return True

    def _is_next(self, key: int, mark_ns: int) -> bool:
        if not self._ids:
            return key >= 0 and mark_ns <= _MOST and key not in self._others.entries
        return (
            self._ids[-1] < key and self._marks_ns[-1] <= mark_ns <= _MOST and key not in self._others.entries
        )

    @property
    def is_full(self) -> bool:
        """Whether it is time for `forget`: that what was kept the last time has doubled."""
        return len(self._ids) > self._room or len(self._others.entries) > self._others.room

    def forget(self, oldest_ns: int, replays_ns: int) -> None:
        """Drop what counted under a lower watermark than this one, or for replayed trades than that one."""
        old = bisect_left(self._marks_ns, oldest_ns)
        del self._ids[:old]
        del self._marks_ns[:old]
        self._saved = max(0, self._saved - old)
        self._room = 2 * len(self._ids) + _ROOM
        others = self._others
        if len(others.entries) <= others.room:
            return
        if next(iter(others.entries.values())) >= oldest_ns:
            others.wait()
            return
        others.keep(
            {
                key: mark_ns
                for key, mark_ns in others.entries.items()
                if mark_ns >= oldest_ns or (mark_ns >= replays_ns and is_replayed(key))
            }
        )

    def unsaved(self) -> Unsaved:
        """At least all inserted since the last `save`."""
        return Unsaved(self._ids[self._saved :], self._marks_ns[self._saved :], *self._others.unsaved())

    def save(self) -> None:
        """Note that everything so far is in state rows that are written once."""
        self._saved = len(self._ids)
        self._others.save()
