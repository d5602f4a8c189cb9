"""How far the reading of files is."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from streams.sources import Source


class FileProgress:
    """A bar on a terminal, by the bytes of all files; nothing where standard error is piped."""

    def __init__(self, sources: list[Source], unit: str) -> None:
        self._sources = sources
        sizes = [source.size for source in sources]
        self._total = sum(size for size in sizes if size is not None) if None not in sizes else None
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("" if self._total is None else "{task.percentage:>3.0f} %"),
            TextColumn(f"{{task.fields[count]:,}} {unit}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("reading", total=self._total, count=0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, count: int, what: str = "reading") -> None:
        """Show how many of the units are done, and what goes on."""
        read = sum(source.read_bytes for source in self._sources)
        self._progress.update(self._task, completed=read, count=count, description=what)


class CountProgress:
    """A bar on a terminal, by a count of what is known to be there; nothing where standard error is piped."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,} of {task.total:,}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(what, total=0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, total: int) -> None:
        """Show how many are done, of how many."""
        self._progress.update(self._task, completed=done, total=total)
