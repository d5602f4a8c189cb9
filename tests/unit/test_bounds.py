"""Compiled functions stay within their arrays, of broken bytes, too: the same tests again, with bounds checked."""

import os
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]
TESTS = ("test_fetched.py", "schemas/test_layout.py", "bars/test_bar_columns.py", "bars/test_bar_render.py")

BEYOND = """
import numpy as np
from schemas.compiled import INT, INTS, compiled

@compiled(INT, INTS)
def beyond(numbers):
    return numbers[len(numbers)]

try:
    beyond(np.zeros(3, np.int64))
except IndexError:
    print("checked")
"""


def run(folder: Path, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder / "compiled")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_nothing_is_read_or_written_beyond_an_array(tmp_path: Path) -> None:
    assert run(tmp_path, "-c", BEYOND) == "checked\n", "else the rest of this says nothing"
    plain = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--override-ini", "addopts=")
    run(tmp_path, "-m", "pytest", *plain, *(UNIT / name for name in TESTS))
