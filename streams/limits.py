"""What the operating system lets a worker have."""

from __future__ import annotations

import contextlib
import sys

#: Each partition's two producers have 16 files open where there is one broker, and two more for each further one.
ENOUGH_FILES = 65_536


def raise_open_files() -> None:
    """Raise the soft limit of open files as far as the hard one allows: 1,024 are few for 100 partitions."""
    if sys.platform == "win32":  # no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
