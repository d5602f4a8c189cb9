"""A worker inside a program of yours.

from agents.runtime import UnifiedRuntime

async with UnifiedRuntime() as runtime:   # tidegate.toml and TIDEGATE_*, or settings of your own
    print(await runtime.health())
    await runtime.run()                   # until somebody calls stop(), or it fails
"""

from __future__ import annotations

from streams import unified
from streams.settings import Settings
from streams.worker import Worker

__all__ = ["UnifiedRuntime"]


def _make(settings: Settings) -> Worker:
    from agents.app import worker  # takes a second, of Faust

    return worker(settings)


class UnifiedRuntime(unified.UnifiedRuntime):
    """`streams.unified.UnifiedRuntime`, with Tidegate's agents."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(_make, settings)
