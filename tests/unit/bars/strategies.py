"""Hypothesis strategies: arbitrary logs of trades."""

from __future__ import annotations

from barlog import SECOND, T0, Rec
from hypothesis import strategies as st

from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import parse
from schemas.replay import REPLAY_HEADER, Replay, encode_replay
from schemas.trade import Trade
from streams.bars.types import BarSpec, BarType, Late

TENTH = SECOND // 10

PRICES = [
    *map(parse, ["0", "1", "3", "-37.63", "0.1", "0.2", "0.7", "61837.63", "2.5", "-1"]),
    *map(parse, ["0.000000000000000001", "999999999999.99"]),
]
SIZES = [*map(parse, ["0", "1", "0.1", "0.2", "3", "0.7", "0.00000001", "1000000000000"])]
IDS = [None, None, None, *range(8), "x", "y", "3"]
VENUES = ["", "", "V"]
RECEIPTS = [None, None, None, None, T0 + 10 * SECOND, T0]


def a_trade(choices):
    """One byte a choice: a draw a field would take hypothesis ten times as long."""
    symbol, venue, tenths, ns, price, size, trade_id, side, recv = choices
    at_ns = 10**6 * SECOND if tenths == 255 else tenths % 100 * TENTH + (ns if ns < 128 else 0)
    return Trade(
        "AAB"[symbol % 3],
        VENUES[venue % 3],
        T0 + at_ns,
        PRICES[price % len(PRICES)],
        SIZES[size % len(SIZES)],
        IDS[trade_id % len(IDS)],
        side % 3 - 1,
        3 if side > 200 else 1,
        RECEIPTS[recv % len(RECEIPTS)],
    )


trades = st.binary(min_size=9, max_size=9).map(a_trade)
values = st.one_of(
    st.lists(trades, min_size=1, max_size=1),
    st.lists(trades, max_size=4),
    st.just(BadTick(Reason.malformed, "not JSON")),
)
origins = st.builds(
    Replay, st.just("ticks"), st.just(3), st.integers(0, 2), st.sampled_from([None, None, 0, 0, 1, 2])
)
headers = st.one_of(
    st.just(()),
    st.just(()),
    st.just(()),
    origins.map(lambda origin: ((REPLAY_HEADER, encode_replay(origin)),)),
    st.sampled_from([(), (), (("trace", b"1"),), ((REPLAY_HEADER, b"{"),)]),
)
stamps = st.sampled_from([(T0 + 9 * SECOND) // 10**6, (T0 + 9 * SECOND) // 10**6, T0 // 10**6, -1, None])


@st.composite
def logs(draw, max_size=40):
    """Records at ascending offsets, some of them with gaps, as compaction leaves them."""
    offset, records = -1, []
    for _ in range(draw(st.integers(0, max_size))):  # lists() would mostly draw short ones
        offset += draw(st.sampled_from([1, 1, 1, 7]))
        records.append(Rec(offset, draw(values), draw(stamps), headers=draw(headers)))
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
