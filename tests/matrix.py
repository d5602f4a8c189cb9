"""Which tests cover which integration point of the ecosystem: docs/coverage.md, made from what pytest collects.

python -m tests.matrix              # write it
python -m tests.matrix --check      # exit with 1, and say why, if it is out of date or a point has no test
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # where pytest finds `support`

from support.points import POINTS, points_of

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = ROOT / "docs" / "coverage.md"

Kind = Literal["unit", "contract", "integration", "end-to-end"]
KINDS: tuple[Kind, ...] = ("unit", "contract", "integration", "end-to-end")

HEAD = """\
# Coverage of the ecosystem

Which tests cover which point of the [ecosystem](ecosystem.md). `python -m tests.matrix` makes this page of the
markers that the tests carry (`@pytest.mark.covers`), and a test compares the two. Unit tests know Tidegate only;
contract tests (`tests/contracts`) are pure, against the published packages; integration tests (`tests/integration`,
`tests/system`) need real servers; end-to-end tests run whole worker processes on them. Each point needs one of the
last three. The numbers are test cases, the names are modules.
"""


class Collected:
    """A plugin of pytest: what each collected test covers, and of which kind it is."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Kind, str]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for point in points_of(item):
                self.found.append((point, kind_of(item), item.path.stem))


def kind_of(item: pytest.Item) -> Kind:
    """By its marker, else by its folder."""
    if item.get_closest_marker("end_to_end") is not None:
        return "end-to-end"
    kinds: Mapping[str, Kind] = {
        "unit": "unit",
        "contracts": "contract",
        "integration": "integration",
        "system": "integration",
    }
    folder = item.path.relative_to(TESTS).parts[0]
    if folder not in kinds:
        raise pytest.UsageError(f"{item.nodeid}: `covers` is for tests in {', '.join(kinds)}")
    return kinds[folder]


def collect() -> list[tuple[str, Kind, str]]:
    """(point, kind, module) of each test case that carries the marker. Exits where pytest cannot collect."""
    files = sorted(str(path) for path in TESTS.rglob("test_*.py") if "covers" in path.read_text())
    collected, said = Collected(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main(
            ["--collect-only", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *files],
            plugins=[collected],
        )
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        told = [line for line in said.getvalue().splitlines() if "::" not in line or "ERROR" in line]
        raise SystemExit("\n".join(["pytest cannot collect the tests:", *told]))
    return collected.found


def page(found: Iterable[tuple[str, Kind, str]]) -> str:
    """The page."""
    cells: dict[tuple[str, str], Counter[str]] = {}
    for point, kind, module in found:
        cells.setdefault((point, kind), Counter())[module] += 1
    lines = [HEAD, f"| | {' | '.join(KINDS)} |", "|---|" + "---|" * len(KINDS)]
    lines += [
        f"| {point} | {' | '.join(_cell(cells.get((point, kind), Counter())) for kind in KINDS)} |"
        for point in POINTS
    ]
    return "\n".join(lines) + "\n"


def _cell(modules: Counter[str]) -> str:
    if not modules:
        return "–"
    return f"{modules.total()}: {', '.join(f'`{name}`' for name in sorted(modules))}"


def main() -> int:
    """Write the page, or compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if it is not as it should be"
    )
    check = parser.parse_args().check
    found = collect()
    made = page(found)
    covered = {point for point, kind, _ in found if kind != "unit"}
    uncovered = [point for point in POINTS if point not in covered]
    if uncovered:
        print(f"no test of a boundary covers: {', '.join(uncovered)}")
    if not check:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run `python -m tests.matrix`")
        return 1
    return 1 if uncovered else 0


if __name__ == "__main__":
    sys.exit(main())
