"""Hypothesis strategies: arbitrary logs of trades."""

from __future__ import annotations

from hypothesis import strategies as st

from barlog import SECOND, T0, Rec
from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.trade import Trade
from streams.bars.types import BarSpec, BarType, Late

TENTH = SECOND // 10

numbers = st.sampled_from(
    ["0", "1", "3", "-37.63", "0.1", "0.2", "0.7", "61837.63", "0.000000000000000001", "999999999999.99"]
).map(parse)
sizes = st.sampled_from(["0", "0", "1", "0.1", "0.2", "3", "7", "0.00000001", "1000000000000"]).map(parse)
times = st.one_of(
    st.integers(0, 100).map(lambda tenths: T0 + tenths * TENTH),
    st.integers(0, 10 * SECOND).map(lambda ns: T0 + ns),
    st.just(T0 + 10**6 * SECOND),
)
trades = st.builds(
    Trade,
    symbol=st.sampled_from("AAB"),
    venue=st.sampled_from(["", "", "V"]),
    ts_ns=times,
    price=numbers,
    size=sizes,
    trade_id=st.one_of(st.none(), st.integers(0, 12), st.sampled_from(["x", "y", "3"])),
    side=st.integers(-1, 1),
    count=st.sampled_from([1, 1, 3]),
    recv_ns=st.sampled_from([None, None, T0 + 10 * SECOND, T0]),
)
values = st.one_of(
    st.lists(trades, min_size=1, max_size=1),
    st.lists(trades, max_size=4),
    st.just(BadTick(Reason.malformed, "not JSON")),
)
stamps = st.sampled_from([(T0 + 9 * SECOND) // 10**6, (T0 + 9 * SECOND) // 10**6, T0 // 10**6, -1, None])


@st.composite
def logs(draw, max_size=40):
    """Records at ascending offsets, some of them with gaps, as compaction leaves them."""
    given_values = draw(st.lists(values, max_size=max_size))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 7]), min_size=len(given_values), max_size=len(given_values)))
    offset, records = -1, []
    for value, step in zip(given_values, steps, strict=True):
        offset += step
        records.append(Rec(offset, value, draw(stamps)))
    return records


durations = st.sampled_from([0, 1, TENTH, SECOND, 2 * SECOND, 4 * SECOND])
specs = st.builds(
    BarSpec,
    bar_types=st.sampled_from([("1s",), ("1s", "3s"), ("2s", "1m", "1s")]).map(
        lambda names: tuple(map(BarType.parse, names))
    ),
    grace_ns=durations,
    late=st.sampled_from([Late.REVISE, Late.REVISE, Late.DEAD_LETTER, Late.DROP]),
    retain_ns=durations,
    dedupe_ns=st.one_of(st.none(), durations),
    max_future_ns=st.sampled_from([SECOND, 10 * SECOND]),
    idle_ns=durations,
)
cuts = st.lists(st.integers(0, 9), max_size=12)
