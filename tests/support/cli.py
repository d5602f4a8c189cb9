"""The command line as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.workers import environment


def tidegate(
    *arguments: str | Path,
    cwd: Path,
    input_bytes: bytes | None = None,
    timeout_s: float = 60,
    **variables: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``tidegate ARGUMENTS`` and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "agents", *map(str, arguments)],
        cwd=cwd,
        input=input_bytes,
        stdin=subprocess.DEVNULL if input_bytes is None else None,
        capture_output=True,
        timeout=timeout_s,
        env=environment(**variables),
        check=False,
    )


def summary(*arguments: str | Path, cwd: Path, **kwargs: Any) -> dict[str, Any]:
    """The JSON summary of a ``tidegate run`` that must succeed."""
    done = tidegate("run", *arguments, "--json", cwd=cwd, **kwargs)
    assert done.returncode == 0, done.stderr.decode()
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def assert_one_clear_line(done: subprocess.CompletedProcess[bytes], *words: str, status: int = 1) -> None:
    """It failed, without a traceback, in one line that holds these words (and maybe a hint below it)."""
    errors = done.stderr.decode()
    assert done.returncode == status, errors
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if not line.startswith("  hint: ")]
    assert lines, "it says nothing"
    for word in words:
        assert word in errors
    if status == 1:
        assert len(lines) == 1, errors
