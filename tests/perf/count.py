"""Instructions that a tick costs on the pure path, counted by valgrind: the same on every run.

    python -m tests.perf.count            # beside what is recorded
    python -m tests.perf.count --record   # into instructions.json, when the cost changed on purpose

A third of the ticks is taken first; what the others cost is counted, so without start and imports. It is given as
a multiple of a fixed loop of plain Python and msgspec (`yardstick`), counted in the same way, because another
build of Python takes other numbers of instructions for the same work.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `bench`

from bench.pure import PureRecord, market, packed, records

RECORDED = Path(__file__).with_name("instructions.json")
RECORD = "python -m tests.perf.count --record"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

TICKS = 10_000
INSTRUMENTS = 500

#: Records of one batch after the other, for one costs more of a small one.
BATCHES = (2_000, *[100] * 20)

#: Ticks a second of event time: `TICKS` close windows several times over.
PER_SECOND = 2_500
DISORDER_NS = 100_000_000

#: What CPython calls for `eval("...")`.
COUNTED = "PyRun_StringFlags"

#: How far the cost may move before somebody must look.
MARGIN = 0.1


class Cost(msgspec.Struct, frozen=True):
    """What a tick costs."""

    yardsticks: float
    """As a multiple of the yardstick: what is compared."""
    instructions: int
    """For people; of the build of Python that is named below."""
    counted_with: str


def measure() -> Cost:
    """Count; takes half a minute. Raises RuntimeError where the path or valgrind fails."""
    with tempfile.TemporaryDirectory() as folder:
        ticks = records(market(3 * TICKS, PER_SECOND, INSTRUMENTS, DISORDER_NS))
        values, fetched = Path(folder) / "values", Path(folder) / "fetched"
        values.write_bytes(b"\n".join(tick.value or b"" for tick in ticks))
        fetched.write_bytes(msgspec.msgpack.encode(_fetched(ticks)))
        # What is compiled and written on the first start would be counted there.
        _run([], fetched, "tidegate")
        tick, yardstick = _per_tick(fetched, "tidegate"), _per_tick(values, "yardstick")
    used = [f"{name} {version(name)}" for name in ("msgspec", "numba", "numpy")]
    build = ", ".join([f"Python {sys.version.split()[0]}", *used])
    return Cost(round(tick / yardstick, 3), round(tick), build)


def recorded() -> Cost | None:
    """The cost that was agreed on, for this minor version of Python."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, Cost]).get(PYTHON)


def verdict(cost: Cost, agreed: Cost) -> str | None:
    """What is wrong with a cost; None where it is what was recorded."""
    change = cost.yardsticks / agreed.yardsticks - 1
    if abs(change) <= MARGIN:
        return None
    found = (
        f"a tick costs {abs(change):.0%} {'more' if change > 0 else 'less'}: {cost}, recorded was {agreed}."
    )
    if change > 0:
        return f"{found} If it is worth it, say so in the commit, and record it: {RECORD}"
    return f"{found} Record that, or the next growth hides in it: {RECORD}"


def why_not() -> str:
    """Why nothing can be counted here; empty where it can."""
    return "" if shutil.which("valgrind") else "there is no valgrind"


def _fetched(ticks: list[PureRecord]) -> list[bytes]:
    found: list[bytes] = []
    for size in cycle(BATCHES):
        if not ticks:
            return found
        found += packed(ticks[:size], size)
        ticks = ticks[size:]
    raise AssertionError


def _per_tick(values: Path, what: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        tool = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counts"),
            # Only its last call is counted, which is the one of `hot_path`.
            *(f"--zero-before={COUNTED}", f"--toggle-collect={COUNTED}"),
        ]
        done = _run(tool, values, what)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None or found[1] == "0":
        raise RuntimeError(f"valgrind counted nothing within {COUNTED}: {done.stderr[-2000:]}")
    return int(found[1]) / int(done.stdout)


def _run(tool: list[str], values: Path, what: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*tool, sys.executable, Path(__file__).with_name("hot_path.py"), values, what, str(TICKS)],
        # Nothing of the caller's: even the size of the environment moves addresses, and with them hashes.
        env={
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": "0",
            "LC_ALL": "C.UTF-8",
            # What is compiled is the same on every machine, and under valgrind, where it would take minutes.
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CPU_FEATURES": "",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"{what}: exit {done.returncode}: {done.stderr[-2000:]}")
    return done


def main() -> None:
    """Count, and compare or record."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.perf.count",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name}")
    options = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"{reason}: install it (apt-get install valgrind)")
    cost, agreed = measure(), recorded()
    print(cost)
    if options.record:
        costs: dict[str, Any] = msgspec.json.decode(RECORDED.read_bytes())
        costs[PYTHON] = msgspec.to_builtins(cost)
        RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=2) + b"\n")
    elif agreed is None:
        raise SystemExit(f"nothing is recorded for Python {PYTHON}: {RECORD}")
    elif wrong := verdict(cost, agreed):
        raise SystemExit(wrong)


if __name__ == "__main__":
    main()
