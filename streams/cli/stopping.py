"""Ending a command by a signal: once to finish what was begun, twice to leave at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SLICE_S = 0.05
#: Launchers pass on what the terminal has sent already: one wish, two signals.
_SAME_S = 1.0


class Stop:
    """Whether SIGINT or SIGTERM came. Not asyncio's handlers: those wait while a read of a pipe blocks."""

    def __init__(self) -> None:
        self.requested = False
        self._requested_s = 0.0
        self._reading = False

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen; afterwards signals do again what they did before."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.requested:
            if now_s - self._requested_s > _SAME_S:
                raise KeyboardInterrupt
            return
        self.requested, self._requested_s = True, now_s
        if self._reading:
            raise KeyboardInterrupt

    def reading(self, items: Iterator[T]) -> Iterator[T]:
        """The items, up to the signal, even where the next one never comes."""
        while not self.requested:
            try:
                self._reading = True
                item = next(items)
                self._reading = False
            except StopIteration:
                return
            except KeyboardInterrupt:
                return
            finally:
                self._reading = False
            yield item

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the signal."""
        end = time.monotonic() + seconds
        # A plain signal handler has no way to wake the loop.
        while not self.requested and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, _SLICE_S))
