"""PostgreSQL in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from support.containers import PinnedPortContainer

IMAGE = os.environ.get("TIDEGATE_POSTGRES_IMAGE", "postgres:16")


class Postgres(PinnedPortContainer):
    """A server that tests may kill and start again; its data and its port survive that."""

    def __init__(self, image: str = IMAGE) -> None:
        super().__init__(image, port=5432)
        self.with_envs(**dict.fromkeys(("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"), "tidegate"))

    @property
    def dsn(self) -> str:
        """What `open_store` and asyncpg take."""
        return f"postgresql://tidegate:tidegate@{self.address}/tidegate"

    @property
    def version(self) -> str:
        """The version that the server tells."""
        told: bytes = self.exec(["postgres", "--version"]).output
        return told.decode().split()[2]

    def wait_ready(self, deadline_s: float = 60) -> None:
        """Return once the server takes connections."""
        # Over TCP: the first start runs a short-lived server that listens on its Unix socket only.
        check = ["pg_isready", "--quiet", "--host=127.0.0.1"]
        self.wait_until(lambda: self.exec(check).exit_code == 0, deadline_s)

    def kill(self) -> None:
        """Stop the server as a power cut would."""
        self.get_wrapped_container().kill()

    def resume(self) -> None:
        """Start a stopped server on the data that it left."""
        self.get_wrapped_container().start()
        self.wait_ready()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of one's own, removed afterwards."""
    with Postgres() as server:
        server.wait_ready()
        yield server
