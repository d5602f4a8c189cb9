"""docs/coverage.md says what the tests cover, and they cover every point of the ecosystem."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.workers import ROOT, environment

NAMED = """\
import pytest

@pytest.mark.covers("event bus", "recovery")
@pytest.mark.covers("{point}")
@pytest.mark.parametrize("n", [1, 2])
def test_it(n):
    pass
"""


def matrix(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.matrix", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )


def test_the_page_is_up_to_date_and_every_point_is_covered() -> None:
    done = matrix("--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("point", ["fan-out", "nothing"])
def test_a_marker_that_names_no_point_fails_the_collection(point: str, tmp_path: Path) -> None:
    module = tmp_path / "test_named.py"
    module.write_text(NAMED.format(point=point))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "points_plugin", str(module)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(PYTHONPATH=_plugin(tmp_path)),
        check=False,
    )
    if point == "nothing":
        assert done.returncode == pytest.ExitCode.USAGE_ERROR
        assert "covers 'nothing', which is no point of tests/support/points.py" in done.stdout + done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def _plugin(folder: Path) -> str:
    """tests/conftest.py's check as a plugin of its own, for a folder that has no part in these tests."""
    folder.joinpath("points_plugin.py").write_text(
        "from support.points import check_points\n"
        "def pytest_configure(config):\n"
        "    config.addinivalue_line('markers', 'covers(point): it')\n"
        "def pytest_collection_modifyitems(items):\n"
        "    check_points(items)\n"
    )
    return f"{folder}:{ROOT / 'tests'}"
