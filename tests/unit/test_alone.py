"""A test marked `alone` runs beside no other, and those that are not run beside each other."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

from support.alone import Machine
from support.wait import until
from support.workers import ROOT, environment

PLUGIN = """\
from support import alone

def pytest_configure(config):
    config.addinivalue_line("markers", "alone: it")
    alone.register(config)
"""

#: Each test says when it is in; ordinary ones stay for a while, until two of them have met.
NAMED = """\
import time
from pathlib import Path
import pytest

HERE = Path(__file__).parent

@pytest.fixture
def others(request):
    mine = HERE / f"{request.node.name}.in"
    mine.touch()
    yield lambda: [path for path in HERE.glob("*.in") if path != mine]
    mine.unlink()

@pytest.mark.parametrize("n", range(6))
def test_ordinary(n, others):
    end = time.monotonic() + 2
    while not (HERE / "met").exists() and time.monotonic() < end:
        if others():
            (HERE / "met").touch()
        time.sleep(0.01)

@pytest.mark.alone
@pytest.mark.parametrize("n", range(3))
def test_alone(n, others):
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        assert not others()
        time.sleep(0.01)
"""


def test_whoever_asks_for_it_has_the_machine_alone_and_others_share_it(tmp_path: Path) -> None:
    (tmp_path / "alone_plugin.py").write_text(PLUGIN)
    (tmp_path / "test_named.py").write_text(NAMED)
    command = "-m pytest -q -p no:cacheprovider -p alone_plugin -n 2 --dist worksteal"
    done = subprocess.run(
        [sys.executable, *command.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(PYTHONPATH=f"{tmp_path}:{ROOT / 'tests'}"),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout
    assert (tmp_path / "met").exists(), "no two ran beside each other"


def _wanting(machine: Machine, *, alone: bool) -> threading.Event:
    has_it = threading.Event()

    def take() -> None:
        machine.take(alone=alone)
        has_it.set()

    threading.Thread(target=take, daemon=True).start()
    return has_it


def test_who_waits_for_the_others_to_end_is_overtaken_by_none(tmp_path: Path) -> None:
    first, lonely, later = Machine(tmp_path), Machine(tmp_path), Machine(tmp_path)
    first.take(alone=False)
    lonely_has_it = _wanting(lonely, alone=True)
    until(lambda: _is_queued(tmp_path), 5, "it waits")
    later_has_it = _wanting(later, alone=False)
    assert not later_has_it.wait(0.2)
    assert not lonely_has_it.is_set()
    first.give_back()
    assert lonely_has_it.wait(5)
    assert not later_has_it.wait(0.2)
    lonely.give_back()
    assert later_has_it.wait(5)
    for machine in (first, lonely, later):
        machine.close()


def test_a_process_that_is_killed_leaves_the_machine_to_others(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from support.alone import Machine\n"
        "m = Machine(pathlib.Path(sys.argv[1])); m.take(alone=True); print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=environment(PYTHONPATH=str(ROOT / "tests")),
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"has it\n"
        machine = Machine(tmp_path)
        has_it = _wanting(machine, alone=False)
        assert not has_it.wait(0.2)
        holder.kill()
        assert has_it.wait(5)
        machine.close()


def _is_queued(folder: Path) -> bool:
    """Whether somebody stands at the head of the queue."""
    with (folder / "queue").open("w") as queue:
        try:
            fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
