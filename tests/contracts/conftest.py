"""Contract tests run by themselves, too: `.ci/contracts` has none of the servers of tests/conftest.py.

Against an old market-data-core no market-data-store works as a whole, as it requires a new one: what needs its
database side is left out then, and the run says so.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where pytest finds `support`

collect_ignore = [] if importlib.util.find_spec("psycopg") else ["test_store_peers.py"]


def pytest_report_header() -> str:
    return (
        f"left out, as market-data-store is not whole: {', '.join(collect_ignore)}" if collect_ignore else ""
    )
