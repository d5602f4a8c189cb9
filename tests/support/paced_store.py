"""A store worker as slow as a test wants: ``python tests/support/paced_store.py SPEED worker --config FILE``.

SPEED is a file with the bars a second that the database takes, which may change at any time; empty is no limit. All
else is the product.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import app as composition
from agents.__main__ import main
from schemas.bar import Bar
from streams.store.base import WriteResult, open_store
from streams.store.slow import SlowStore

speed = Path(sys.argv.pop(1))


class PacedStore(SlowStore):
    """Reads its limit before each write."""

    async def write(self, bars: Sequence[Bar]) -> WriteResult:
        text = speed.read_text()  # noqa: ASYNC240  a few bytes of a local file
        self.bars_per_second = float(text) if text else None
        return await super().write(bars)


def _paced(*args: Any, **kwargs: Any) -> PacedStore:
    return PacedStore(open_store(*args, **kwargs), None)


if __name__ == "__main__":
    composition.open_store = _paced
    main()
