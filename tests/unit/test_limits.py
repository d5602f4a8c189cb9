from __future__ import annotations

import resource

from streams.limits import ENOUGH_FILES, raise_open_files


def test_a_worker_may_open_as_many_files_as_the_hard_limit_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        raise_open_files()
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert soft == (ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES))
        raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
