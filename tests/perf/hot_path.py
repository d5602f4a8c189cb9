"""What is counted: `python hot_path.py VALUES tidegate|yardstick TICKS`, TICKS of the lines of VALUES.

`tidegate` is the codec, the engine, its bars encoded, and its state rows at each checkpoint. `yardstick` is a loop
that never changes: what it costs is what this Python and this msgspec cost.
"""

from __future__ import annotations

import gc
import sys
from itertools import cycle
from pathlib import Path

import msgspec

#: Records of one batch after the other: read as columns where they are many, and one by one where they are few.
BATCHES = (2_000, *[100] * 20)

#: Ticks between two checkpoints.
CHECKPOINT = 8_000


class Tick(msgspec.Struct, gc=False):
    """As much of a tick as the yardstick looks at."""

    symbol: str
    ts_ns: int
    price: str
    size: str
    trade_id: int


def tidegate(values: list[bytes]) -> None:
    """The product's own path."""
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    from bench.pure import PureRecord, engine, spec, take  # the yardstick starts faster without

    made = engine(spec("1s", "1m"))
    records = [PureRecord(n, 1_750_000_080_000, None, value) for n, value in enumerate(values)]
    bars = at = 0
    for size in cycle(BATCHES):
        if at >= len(records):
            break
        bars += take(made, records[at : at + size])
        at += size
        if at % CHECKPOINT == 0:
            made.changed()
    if values and not bars:
        raise SystemExit("no bar was closed: nothing was measured")


def yardstick(values: list[bytes]) -> None:
    """Decode, look up, compare, add: plain Python of the kind that the engine is made of."""
    decode = msgspec.json.Decoder(Tick).decode
    sums: dict[str, list[int]] = {}
    for value in values:
        tick = decode(value)
        found = sums.get(tick.symbol)
        if found is None:
            found = sums[tick.symbol] = [0, 0, 0]
        found[0] += 1
        if tick.ts_ns > found[1]:
            found[1] = tick.ts_ns
        found[2] += len(tick.price) * len(tick.size) * 10**18


if __name__ == "__main__":
    path, what, ticks = sys.argv[1:]
    # A worker has it look seldom. Here one look more at all that numba has made would be a sixth of the count.
    gc.disable()
    lines = Path(path).read_bytes().splitlines()
    {"tidegate": tidegate, "yardstick": yardstick}[what](lines[: int(ticks)])
