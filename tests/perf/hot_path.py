"""What is counted: `hot_path.py FETCHED tidegate TICKS` and `hot_path.py VALUES yardstick TICKS`.

`tidegate` is what a worker does with what it has fetched: finding records, codec, engine, its bars encoded, and
its state rows at each checkpoint. `yardstick` is a loop over lines that never changes: what it costs is what this
Python and this msgspec cost.

The first TICKS are not counted: by then all is loaded and every instrument known.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

#: Ticks between two checkpoints.
CHECKPOINT = 8_000


class Tick(msgspec.Struct, gc=False):
    """As much of a tick as the yardstick looks at."""

    symbol: str
    ts_ns: int
    price: str
    size: str
    trade_id: int


def tidegate(path: Path) -> Iterator[int]:
    """The product's own path; yields how many ticks each fetch had."""
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    from bench.pure import engine, spec, take, unpacked  # the yardstick starts faster without

    made = engine(spec("1s", "1m"))
    bars = taken = 0
    for data in msgspec.msgpack.decode(path.read_bytes(), type=list[bytes]):
        batch = unpacked(data)
        bars += take(made, batch)
        taken += len(batch)
        if taken % CHECKPOINT == 0:
            made.changed()
        yield len(batch)
    if not bars:
        raise SystemExit("no bar was closed: nothing was measured")


def yardstick(path: Path) -> Iterator[int]:
    """Decode, look up, compare, add: plain Python of the kind that the engine is made of."""
    decode = msgspec.json.Decoder(Tick).decode
    sums: dict[str, list[int]] = {}
    lines = iter(path.read_bytes().splitlines())
    while some := list(islice(lines, 1_000)):
        for value in some:
            tick = decode(value)
            found = sums.get(tick.symbol)
            if found is None:
                found = sums[tick.symbol] = [0, 0, 0]
            found[0] += 1
            if tick.ts_ns > found[1]:
                found[1] = tick.ts_ns
            found[2] += len(tick.price) * len(tick.size) * 10**18
        yield len(some)


def warm_up(fetches: Iterable[int], ticks: int) -> None:
    """Take so many ticks."""
    for taken in fetches:
        ticks -= taken
        if ticks <= 0:
            return
    raise SystemExit("there are too few ticks: nothing was measured")


if __name__ == "__main__":
    path, what, ticks = sys.argv[1:]
    # A worker has it look seldom. Here one look more at all that numba has made would be a sixth of the count.
    gc.disable()
    fetches = {"tidegate": tidegate, "yardstick": yardstick}[what](Path(path))
    warm_up(fetches, int(ticks))
    # Text, because what runs text is a C function that valgrind knows by name: what is done in here is counted.
    print(eval("sum(fetches)"))  # noqa: S307 (nobody's text but ours)
