"""Whether a Docker engine answers, and containers with a port that stays theirs."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path

# testcontainers reads them when imported: published ports are reached on loopback, never on a bridge address.
os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")

import docker
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

HOST = "127.0.0.1"


@functools.cache
def why_no_docker() -> str | None:
    """The reason why containers cannot be started here, or None."""
    with warnings.catch_warnings():
        # The client leaves its socket open when nobody listens.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _engine_answers()
        gc.collect()
    return None if answers else "no Docker engine answers"


def _engine_answers() -> bool:
    try:
        docker.from_env(timeout=5).close()  # asks the engine for its version
    except docker.errors.DockerException:
        return False
    return True


@functools.cache
def forgo_ryuk_where_it_cannot_be_had() -> None:
    """Run without the container that cleans up after a killed test run where no registry has its image."""
    if testcontainers_config.ryuk_disabled:
        return
    client = docker.from_env()
    try:
        if not client.images.list(name=testcontainers_config.ryuk_image):
            client.images.pull(testcontainers_config.ryuk_image)
    except docker.errors.APIError:
        testcontainers_config.ryuk_disabled = True
    finally:
        client.close()


#: Below those that systems give to outgoing connections. One of these may be somebody's by the time a server
#: binds it; and who tries again and again to reach a server that is down may get connected to itself, and keep it
#: from its port.
#: Test processes that run beside each other have different ones: between choice and use, a port is nobody's.
_MINE, _OF = (
    os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:],
    os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"),
)
_PORTS = range(20_000, 32_000)[int(_MINE) % int(_OF) :: int(_OF)]
_given: set[int] = set()


def free_port() -> int:
    """A loopback TCP port that nobody listens on; never the same twice."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            if port not in _given:
                sock.bind((HOST, port))
                _given.add(port)
                return port


class PinnedPortContainer(DockerContainer):
    """A container that publishes `port` on a fixed loopback port, which outlives a restart.

    A port that Docker picks is picked again at every start: clients of a restarted server would lose it.
    """

    def __init__(self, image: str, port: int | None = None, memory: str = "2g") -> None:
        forgo_ryuk_where_it_cannot_be_had()
        super().__init__(image)
        self.host_port = free_port()
        self.ports[str(port or self.host_port)] = (HOST, self.host_port)
        self.with_kwargs(mem_limit=memory)

    def publish_another(self) -> int:
        """One more fixed loopback port, the same inside."""
        port = free_port()
        self.ports[str(port)] = (HOST, port)
        return port

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        """Remove the container; its log stays in the folder TIDEGATE_CONTAINER_LOGS, if one is named."""
        if (folder := os.environ.get("TIDEGATE_CONTAINER_LOGS")) and self._container is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = f"{type(self).__name__.lower()}-{self.host_port}.log"
            Path(folder, name).write_bytes(self._container.logs())
        super().stop(force, delete_volume)

    @property
    def address(self) -> str:
        """Where clients find it, as HOST:PORT."""
        return f"{HOST}:{self.host_port}"

    def wait_until(self, ready: Callable[[], bool], deadline_s: float) -> None:
        """Poll `ready`; a container that exits or misses the deadline fails with its last log lines."""
        container = self.get_wrapped_container()
        end = time.monotonic() + deadline_s
        while not ready():
            container.reload()
            if container.status == "exited" or time.monotonic() > end:
                log = container.logs(tail=40).decode(errors="replace")
                state = f"{container.status}, not ready within {deadline_s} s"
                raise RuntimeError(f"{self.image} is {state}:\n{log}")
            time.sleep(0.1)
