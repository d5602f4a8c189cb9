"""A table of what was measured, at the end of the run."""

from __future__ import annotations

from dataclasses import fields

import pytest

from soak.figures import Figures

MEASURED: list[Figures] = []


@pytest.fixture
def measured() -> list[Figures]:
    """What goes into the table."""
    return MEASURED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not MEASURED:
        return
    terminalreporter.section("soak")
    rows = [[field.name.replace("_", " ") for field in fields(Figures)], *(one.row() for one in MEASURED)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        terminalreporter.line("  ".join(cells).rstrip())
