"""Short texts of many records at once, eight bytes at a time, in numpy.

A word is eight bytes of a text as one integer, the first of them the lowest. With the arithmetic of words a byte
is found, eight digits become a number and eight bytes are compared by a handful of operations, each of which
numpy does for all records in one go. All of it is exact, whatever the bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_ONES: Final = 0x0101010101010101
_HIGHS: Final = 0x80 * _ONES
_DIGIT: Final = ord("0")
_MOST: Final = 2**63 - 1
_MAX_DIGITS: Final = 19
_FARTHEST: Final = 1024

#: Spaces before and after the text, so that a word at either end of it can be read.
PAD: Final = 24


class Unfit(ValueError):
    """One of the texts is not what it must be."""


class Text:
    """Bytes, of which places are given by arrays: where something begins, and how many bytes it is long.

    There are `PAD` bytes at either end that no place may begin in. What asks for a form raises `Unfit` where one
    of the places has another.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._words: Words = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))

    @property
    def lowest(self) -> int:
        """The lowest of the bytes."""
        return int(self._bytes.min())

    def find(self, start: Ints, byte: int, limit: Ints, skip: int = 0) -> Ints:
        """How far the next such byte is from each start; the limit where there is none before it.

        The first `skip` bytes are not looked at: whoever knows that it cannot be there saves time.
        """
        if skip:
            return (
                self.find(np.minimum(start + skip, start + limit), byte, np.maximum(limit - skip, 0)) + skip
            )
        found = _first(self._words[start], byte)
        far = 8
        while True:
            beyond = np.flatnonzero((found == far) & (limit > far))
            if not len(beyond):
                return np.minimum(found, limit)
            if far > _FARTHEST:
                raise Unfit
            found[beyond] += _first(self._words[start[beyond] + far], byte)
            far += 8

    def must_be(self, start: Ints, text: bytes) -> None:
        """See that this text stands at each start."""
        for at in range(0, len(text), 8):
            piece = text[at : at + 8]
            words = self._words[start + at]
            if len(piece) < 8:
                words = words & np.uint64(256 ** len(piece) - 1)
            if not bool((words == np.uint64(int.from_bytes(piece, "little"))).all()):
                raise Unfit

    def whole(self, start: Ints, width: Ints) -> Ints:
        """Numbers below 2**63, in digits: at least one, and no zero in front of others."""
        if int(width.min()) < 1 or bool(((self._bytes[start] == _DIGIT) & (width > 1)).any()):
            raise Unfit
        return self.digits(start + width, width)

    def digits(self, end: Ints, width: Ints) -> Ints:
        """What these digits say, of which there may be none and any number of zeros in front."""
        least, most = int(width.min()), int(width.max())
        if most > _MAX_DIGITS:
            raise Unfit
        total = np.zeros(len(end), np.uint64)
        wrong = np.zeros(len(end), np.uint64)
        for at in range(0, most, 8):
            words = self._words[end - (at + 8)] ^ np.uint64(_DIGIT * _ONES)
            if at + 8 > least:
                # Of the last eight bytes those before the first digit are cleared; they are the lower ones.
                before = (64 - 8 * np.clip(width - at, 0, 8)).astype(np.uint64)
                words = (words >> before) << before
            wrong |= (words | (words + np.uint64(6 * _ONES))) & np.uint64(0xF0 * _ONES)
            words = (words * np.uint64(10) + (words >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
            words = (words * np.uint64(100) + (words >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
            words = (words * np.uint64(10_000) + (words >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
            total += words * np.uint64(10**at)
        if bool(wrong.any()) or int(total.max()) > _MOST:
            raise Unfit
        return total.view(np.int64)

    def codes(self, start: Ints, width: Ints) -> tuple[Ints, Ints]:
        """Which texts are equal: a number for each, from 0 on, and where one text of each number is."""
        words = [self._word(start, width, at) for at in range(0, max(1, int(width.max())), 8)]
        if all(bool((word == word[0]).all()) for word in words):
            return np.zeros(len(start), np.int64), np.zeros(1, np.int64)
        key = words[0]
        for more in words[1:]:
            key = (key ^ (key >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + more
        order = np.argsort(key)
        ordered = key[order]
        begins = np.append(True, ordered[1:] != ordered[:-1])
        code = np.empty(len(key), np.int64)
        code[order] = np.cumsum(begins) - 1
        first = order[begins]
        # Two texts with one key are possible where a text is longer than a word.
        if len(words) > 1 and not all(bool((word == word[first][code]).all()) for word in words):
            raise Unfit
        return code, first

    def choose(self, start: Ints, width: Ints, texts: dict[bytes, int]) -> Ints:
        """What these texts of eight bytes at most stand for."""
        if int(width.max()) > 8:
            raise Unfit
        words = self._word(start, width, 0)
        chosen = np.zeros(len(words), np.int64)
        known = np.zeros(len(words), np.bool_)
        for text, value in texts.items():
            same = words == np.uint64(int.from_bytes(text, "little"))
            chosen[same] = value
            known |= same
        if not bool(known.all()):
            raise Unfit
        return chosen

    def _word(self, start: Ints, width: Ints, at: int) -> Words:
        """The word that begins `at` bytes into each text, with zeros after its end; no byte of it may be one."""
        after = (64 - 8 * np.clip(width - at, 0, 8)).astype(np.uint64)
        # A text may end long before: what is read then counts nothing.
        words: Words = self._words[np.minimum(start + at, len(self._words) - 1)]
        return (words << after) >> after


def _first(words: Words, byte: int) -> Ints:
    """How many bytes of each word are before the first such byte; 8 where there is none."""
    words = words ^ np.uint64(byte * _ONES)
    # The high bit of each byte that is zero now; above the first of them that may be wrong.
    hits = (words - np.uint64(_ONES)) & ~words & np.uint64(_HIGHS)
    below = (hits - np.uint64(1)) & ~hits & np.uint64(_HIGHS)
    return (((below >> np.uint64(7)) * np.uint64(_ONES)) >> np.uint64(56)).view(np.int64)
