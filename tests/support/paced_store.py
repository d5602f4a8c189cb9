"""A store worker as slow as a test wants: ``python tests/support/paced_store.py SPEED worker --config FILE``.

SPEED is a file with the bars a second that the database takes, which may change at any time; empty is no limit. All
else is the product. What it does is told beside it, a line each: in SPEED.writes when a write began and ended
(seconds of this machine's monotonic clock) and how many bars it was given, in SPEED.batches how many bars came
at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import app as composition
from agents.__main__ import main
from schemas.bar import Bar
from streams.batch import Batch
from streams.store.base import WriteResult, open_store
from streams.store.slow import SlowStore
from streams.store.writer import StoreWriter

speed = Path(sys.argv.pop(1))


class PacedStore(SlowStore):
    """Reads its limit before each write."""

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        text = speed.read_text()  # noqa: ASYNC240  a few bytes of a local file
        self.bars_per_second = float(text) if text else None
        began = time.monotonic()
        result = await super().write(bars)
        _tell("writes", f"{began} {time.monotonic()} {len(bars)}")
        return result


class ToldWriter(StoreWriter):
    """The product's, and what it is given is told."""

    async def put(self, batch: Batch) -> None:
        _tell("batches", str(len(batch.records)))
        await super().put(batch)


def _tell(what: str, line: str) -> None:
    with speed.with_name(f"{speed.name}.{what}").open("a") as told:
        told.write(f"{line}\n")


def _paced(*args: Any, **kwargs: Any) -> PacedStore:
    return PacedStore(open_store(*args, **kwargs), None)


if __name__ == "__main__":
    composition.open_store = _paced
    composition.StoreWriter = ToldWriter  # type: ignore[misc]
    main()
