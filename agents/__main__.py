"""The command ``tidegate``."""

from __future__ import annotations

import os
from typing import Any

# numpy starts a thread per core for linear algebra, which nobody does here, and they look for work all the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _roles() -> Any:
    # Faust takes a second to import: only commands that run agents pay for it.
    from agents import app

    return app


def main() -> None:
    """Run the command line; the commands get the agents from here, because `streams` may not import them."""
    from streams.cli import main as cli

    cli(_roles)


if __name__ == "__main__":
    main()
