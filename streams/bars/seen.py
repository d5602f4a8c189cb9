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
    """Trade ids, and the watermarks when they counted."""

    pairs: array[int]
    """Of ids that are 64-bit numbers and ascend, as of most: an id, its watermark, the next id and so on."""
    others: list[str | int]
    others_ns: list[int]


class Seen:
    """The ids of the trades that counted, each with the watermark when it did.

    Venues number their trades upwards. What comes in ascending order is kept in an array, at 16 bytes an id; all
    else, text and what is out of order, in a dict. That is asked first, for there is what counted again.
    What has expired may still be found: whoever looks an id up also judges whether it counts.
    """

    __slots__ = ("_others", "_pairs", "_room", "_saved", "_top")

    def __init__(self) -> None:
        self._pairs = array("q")
        """An id, its watermark, the next id and so on. The watermarks never descend, as the watermark does not."""
        self._others: Memory[str | int, int] | None = None
        """Made with its first entry."""
        self._room = _ROOM
        self._saved = 0
        """How many of the array's ids are in rows of the state."""
        self._top = -1
        """No id among the others that is a number was ever higher."""

    @property
    def top(self) -> int:
        """Which no 64-bit number that is known exceeds; it is one itself."""
        return max(min(self._top, _MOST), self._pairs[-2] if self._pairs else -1)

    def __len__(self) -> int:
        return len(self._pairs) // 2 + (len(self._others.entries) if self._others else 0)

    def get(self, key: str | int) -> int | None:
        """What the watermark was when it counted last; None where that is not known."""
        if self._others is not None and (found := self._others.entries.get(key)) is not None:
            return found
        pairs = self._pairs
        if type(key) is int and pairs and pairs[0] <= key <= pairs[-2]:
            at = 2 * bisect_left(memoryview(pairs)[::2], key)
            if pairs[at] == key:
                return pairs[at + 1]
        return None

    def put(self, key: str | int, mark_ns: int) -> None:
        """Insert it, whether it is known or not."""
        if type(key) is int and self._is_next(key, mark_ns) and key <= _MOST:
            self._pairs.append(key)
            self._pairs.append(mark_ns)
        else:
            self._rest().put(key, mark_ns)
            if type(key) is int and key > self._top:
                self._top = key

    def append(self, pairs: memoryview) -> None:
        """Insert ids that are above all that are known, each with its watermark, as bytes of 64-bit numbers.

        Somebody else sees to it that they are saved.
        """
        are_saved = 2 * self._saved == len(self._pairs)
        self._pairs.frombytes(pairs)
        if are_saved:
            self._saved = len(self._pairs) // 2

    def enter(self, key: str | int, mark_ns: int, since_ns: int) -> bool:
        """Insert it, unless it counted when the watermark was at least `since_ns`; if it did, false."""
        pairs = self._pairs
        others = self._others
        # Nearly all ascend; the watermark does not descend.
        if (
            key.__class__ is int
            and (pairs[-2] if pairs else -1) < key <= _MOST
            and (others is None or key not in others.entries)
        ):
            pairs.append(key)
            pairs.append(mark_ns)
            return True
        seen_ns = self.get(key)
        if seen_ns is not None and seen_ns >= since_ns:
            return False
        self.put(key, mark_ns)
        return True

    def extend(self, new: memoryview, rising: int, floor_ns: int) -> bool:
        """`extend_any` of 64-bit numbers from 0 on, where first come so many that are above all before them.

        They are in pairs with their marks. Those of the first do not descend; `floor_ns` is counted for those that
        are lower.
        """
        pairs = self._pairs
        known = 0
        if pairs and pairs[-2] >= new[0]:
            known = bisect_right(new[::2], pairs[-2], 0, rising)
        count = len(new) // 2
        if self._others is not None or known or rising < count:
            ids = new[::2].tolist()
            if self._others is not None and not self._others.entries.keys().isdisjoint(ids):
                return False
            behind = [*ids[:known], *ids[rising:]]
            if behind:
                if len(set(ids)) < count or any(self.get(key) is not None for key in behind):
                    return False
                marks_ns = [*new[1 : 2 * known : 2], *new[2 * rising + 1 :: 2]]
                marks_ns = [max(mark_ns, floor_ns) for mark_ns in marks_ns]
                self._rest().entries.update(zip(behind, marks_ns, strict=True))
                self._top = max(self._top, *behind)
        at = len(pairs) + 1
        pairs.frombytes(new[2 * known : 2 * rising].cast("B"))
        while at < len(pairs) and pairs[at] < floor_ns:
            pairs[at] = floor_ns
            at += 2
        return True

    def extend_any(self, ids: Sequence[str | int], marks_ns: Sequence[int]) -> bool:
        """Insert ids in the order in which they came, if none is known and none comes twice; if not, nothing."""
        others = self._rest().entries
        entries = dict(zip(ids, marks_ns, strict=True))
        if len(entries) < len(ids) or not others.keys().isdisjoint(entries):
            return False
        if set(map(type, ids)) == {str}:
            others.update(entries)
            return True
        if self._pairs and any(self.get(key) is not None for key in entries):
            return False
        for key, mark_ns in entries.items():
            self.put(key, mark_ns)
        return True

    def _is_next(self, key: int, mark_ns: int) -> bool:
        if self._others is not None and key in self._others.entries:
            return False
        pairs = self._pairs
        if not pairs:
            return key >= 0 and mark_ns <= _MOST
        return pairs[-2] < key and pairs[-1] <= mark_ns <= _MOST

    def _rest(self) -> Memory[str | int, int]:
        if self._others is None:
            self._others = Memory()
        return self._others

    @property
    def is_full(self) -> bool:
        """Whether it is time for `forget`: that what was kept the last time has doubled."""
        others = self._others
        return len(self._pairs) > 2 * self._room or (others is not None and len(others.entries) > others.room)

    def forget(self, oldest_ns: int, replays_ns: int) -> None:
        """Drop what counted under a lower watermark than this one, or for replayed trades than that one."""
        old = bisect_left(memoryview(self._pairs)[1::2], oldest_ns)
        del self._pairs[: 2 * old]
        self._saved = max(0, self._saved - old)
        self._room = len(self._pairs) + _ROOM
        others = self._others
        if others is None or len(others.entries) <= others.room:
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
        new = self._pairs[2 * self._saved :]
        return Unsaved(new, [], []) if self._others is None else Unsaved(new, *self._others.unsaved())

    def save(self) -> None:
        """Note that everything so far is in rows of the state."""
        self._saved = len(self._pairs) // 2
        if self._others is not None:
            self._others.save()

    def unsave(self) -> None:
        """Let everything be inserted since the last `save`."""
        self._saved = 0
        if self._others is not None:
            self._others.unsave()
