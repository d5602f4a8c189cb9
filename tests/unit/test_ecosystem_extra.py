"""What stands on market-data-core says so where that package is missing; Tidegate itself does not need it."""

from __future__ import annotations

import subprocess
import sys

from support.workers import environment

MODULES = ("contracts", "event_bus", "feedback_bus", "feedback_handler", "rate")

WITHOUT_CORE = """\
import importlib, sys
from schemas.errors import ConfigError
sys.modules["market_data_core"] = None
for name in sys.argv[1:]:
    try:
        importlib.import_module(f"streams.ecosystem.{name}")
    except ConfigError as exc:
        print(exc, "|", exc.hint)
"""


def test_a_missing_core_is_an_error_that_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CORE, *MODULES],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    said = "streams.ecosystem needs the package market_data_core, which is not installed"
    assert done.stdout.splitlines() == [f"{said} | pip install 'tidegate[core]'"] * len(MODULES)


def test_what_is_imported_loads_no_faust() -> None:
    code = (
        "import sys, streams.ecosystem.event_bus, streams.ecosystem.feedback_bus, streams.ecosystem.rate\n"
        "print('faust' in sys.modules, 'mode' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
