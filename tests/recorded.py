"""Where the recorded market data lies, which the repository does not ship."""

from pathlib import Path

import pytest

TICKS = Path(__file__).parents[2] / "shared" / "ticks"

needs_ticks = pytest.mark.skipif(
    not TICKS.exists(), reason="recorded ticks are not here (they are not part of the repository)"
)
