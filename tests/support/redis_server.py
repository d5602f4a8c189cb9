"""Redis in a container. Not redis.py: scripts in this folder would import it in place of the package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from support.containers import PinnedPortContainer

IMAGE = os.environ.get("TIDEGATE_REDIS_IMAGE", "redis:7")


class Redis(PinnedPortContainer):
    """A server that tests may kill and start again; its data and its port survive that."""

    def __init__(self, image: str = IMAGE, options: str = "") -> None:
        super().__init__(image, port=6379, memory="512m")
        self.with_command(f"--appendonly yes {options}")

    @property
    def url(self) -> str:
        """What core's `create_event_bus` and redis-py take."""
        return f"redis://{self.address}/0"

    @property
    def version(self) -> str:
        """The version that the server tells."""
        told: bytes = self.exec(["redis-server", "--version"]).output  # Redis server v=7.0.15 sha=...
        return told.decode().split()[2].removeprefix("v=")

    def wait_ready(self, deadline_s: float = 60) -> None:
        """Return once the server answers and has loaded its data; one that asks for a password answers, too."""
        self.wait_until(
            lambda: self.exec(["redis-cli", "ping"]).output.startswith((b"PONG", b"NOAUTH")), deadline_s
        )

    def kill(self) -> None:
        """Stop the server as a power cut would."""
        self.get_wrapped_container().kill()

    def resume(self) -> None:
        """Start a stopped server on the data that it left."""
        self.get_wrapped_container().start()
        self.wait_ready()


@contextmanager
def running_redis(options: str = "") -> Iterator[Redis]:
    """A server of one's own, removed afterwards."""
    with Redis(options=options) as server:
        server.wait_ready()
        yield server
