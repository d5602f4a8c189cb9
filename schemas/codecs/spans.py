"""The values of many records, where they stand: one text, and of each where it begins and ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]

PAD: Final = bytes(8)
"""After a text, so that there is a word of eight bytes at its last byte, too."""


class Spans(Sequence[bytes | None]):
    """Value i is `data[begins[i]:ends[i]]`, and None where it begins at -1. The text ends with `PAD`."""

    __slots__ = ("begins", "data", "ends")

    def __init__(self, data: bytes, begins: Ints, ends: Ints) -> None:
        self.data = data
        self.begins = begins
        self.ends = ends

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Spans:
        """Values side by side; those that are in one text already stay there."""
        if isinstance(values, cls):
            return values
        widths = np.fromiter((-1 if value is None else len(value) for value in values), np.int64, len(values))
        ends = np.cumsum(np.maximum(widths, 0))
        data = b"".join((*(value for value in values if value is not None), PAD))
        return cls(data, np.where(widths < 0, -1, ends - widths), ends)

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, at: int) -> bytes | None: ...
    @overload
    def __getitem__(self, at: slice) -> Spans: ...
    def __getitem__(self, at: int | slice) -> bytes | Spans | None:
        if isinstance(at, slice):
            return Spans(self.data, self.begins[at], self.ends[at])
        begin = self.begins[at]
        return None if begin < 0 else self.data[begin : self.ends[at]]

    def __iter__(self) -> Iterator[bytes | None]:
        data = self.data
        for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True):
            yield None if begin < 0 else data[begin:end]


def bytes_and_words(data: bytes) -> tuple[Bytes, Words]:
    """Of a text with `PAD` at its end: its bytes, and the eight from each of them on as one integer."""
    return np.frombuffer(data, np.uint8), np.ndarray((len(data) - len(PAD) + 1,), "<u8", data, 0, (1,))
