"""Apicurio Registry, which speaks the API of Confluent's schema registry, as a plain Java process on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from support.containers import HOST, free_port
from support.wait import until

#: Names the folder that ``.ci/apicurio FOLDER`` has filled.
FOLDER = "TIDEGATE_APICURIO"

_API = "/apis/ccompat/v7"


def why_none() -> str:
    """Why no registry can be started here; empty where one can."""
    if not os.environ.get(FOLDER):
        return f"{FOLDER} does not name the folder that .ci/apicurio has filled"
    if not list(Path(os.environ[FOLDER]).glob("*-runner.jar")):
        return f"{os.environ[FOLDER]} holds no *-runner.jar; .ci/apicurio fetches one"
    return "" if shutil.which("java") else "there is no java, which Apicurio Registry needs"


@contextmanager
def running_registry() -> Iterator[str]:
    """A registry of one's own, in memory; its URL for clients of Confluent's API."""
    (jar,) = Path(os.environ[FOLDER]).glob("*-runner.jar")
    port = free_port()
    own = {"QUARKUS_HTTP_PORT": str(port), "QUARKUS_HTTP_HOST": HOST}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["java", "-Xmx512m", "-jar", str(jar)], env={**os.environ, **own}, stdout=log, stderr=log
        )

        def ready() -> bool:
            assert process.poll() is None, f"Apicurio Registry left: {_tail(log)}"
            return _answers(port)

        try:
            until(ready, 120, "Apicurio Registry answers", every_s=0.2)
            yield f"http://{HOST}:{port}{_API}"
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{_API}/subjects", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-2000:].decode(errors="replace")
