"""What reads columns is compiled where it can be; where it cannot, the same bars come of the same ticks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, sys
{before}
sys.path[:0] = {paths}
from bench.pure import EPOCH_NS, market, records, spec
from schemas.bar import encode_bar
from schemas.codecs import get_codec
from streams.bars.engine import BarEngine
from streams.bars.intake import load

try:
    load()
except ImportError:
    loaded = False
else:
    loaded = True
engine = BarEngine(spec("1s", "1m"), get_codec("tidegate"), "ticks", 0)
log = records(market(6_000, 2_000, 5, 100_000_000))
reads = [engine.read(log[n : n + 400]) for n in range(0, len(log), 400)]
bars = [bar for read in reads for bar in engine.apply(read.records, EPOCH_NS, read).bars]
print(json.dumps([loaded, [read.sheet is not None for read in reads], [encode_bar(bar).decode() for bar in bars]]))
"""

AS_IT_IS = ""
NO_NUMBA = "sys.modules['numba'] = None"
OF_ANOTHER_NUMPY = """
import builtins
imported = builtins.__import__
def refuse(name, *args, **kwargs):
    if name.split('.')[0] == 'numba':
        raise ImportError('Numba needs NumPy 2.3 or less')
    return imported(name, *args, **kwargs)
builtins.__import__ = refuse
"""
NO_CACHE = """
import numba.core.dispatcher
def refuse(self):
    raise RuntimeError('cannot cache function: no locator available')
numba.core.dispatcher.Dispatcher.enable_caching = refuse
"""
FULL_DISK = """
import numba.core.caching
def refuse(self, *args, **kwargs):
    raise OSError(28, 'No space left on device')
numba.core.caching.FunctionCache.save_overload = refuse
numba.core.caching.FunctionCache.load_overload = lambda self, *args: None
"""
CUT_OFF = """
import numba.core.caching
def refuse(self, *args, **kwargs):
    raise EOFError('Ran out of input')
numba.core.caching.FunctionCache.load_overload = refuse
"""


def outcome(before: str) -> tuple[bool, list[bool], list[str]]:
    program = PROGRAM.format(before=before, paths=[str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded, sheets, bars = json.loads(done.stdout)
    return loaded, sheets, bars


@pytest.fixture(scope="module")
def usual() -> list[str]:
    loaded, sheets, bars = outcome(AS_IT_IS)
    assert loaded
    assert all(sheets)
    assert len(bars) > 5
    return bars


@pytest.mark.parametrize("before", [NO_NUMBA, OF_ANOTHER_NUMPY], ids=["none", "of another numpy"])
def test_without_numba_ticks_are_read_one_by_one(before, usual) -> None:
    loaded, sheets, bars = outcome(before)
    assert (loaded, any(sheets)) == (False, False)
    assert sorted(bars) == sorted(usual)  # of different instruments, whichever comes first


@pytest.mark.parametrize("before", [NO_CACHE, FULL_DISK, CUT_OFF], ids=["no folder", "full disk", "cut off"])
def test_where_nothing_can_be_kept_it_is_compiled_at_each_start(before, usual) -> None:
    loaded, sheets, bars = outcome(before)
    assert (loaded, all(sheets)) == (True, True)
    assert sorted(bars) == sorted(usual)  # of different instruments, whichever comes first
