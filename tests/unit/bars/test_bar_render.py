"""The text of many bars' numbers is what `schemas.fixed.render` writes of each."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.codecs.layout import UNIT
from schemas.fixed import TURNOVER_SCALE
from schemas.fixed import render as render_one
from streams.bars import merge as m
from streams.bars.render import PRICES, SUMS, TEXTS, WIDTH, render
from streams.bars.window import divide

numbers = st.one_of(
    st.integers(0, m.FITS - 1),
    st.integers(0, 12),
    st.builds(lambda digits, zeros: digits * 10**zeros, st.integers(0, 999), st.integers(0, 15)),
    st.sampled_from([UNIT, UNIT - 1, m.FITS - 1]),
)


@st.composite
def windows(draw):
    """A window's columns, with a turnover that its volume and its prices can have."""
    columns = {column: draw(numbers) for column in (*PRICES, *SUMS)}
    volume = columns[m.VOLUME]
    turnover = min(draw(numbers) * volume + draw(st.integers(0, volume)), (m.FITS - 1) * volume)
    return columns, turnover


@given(st.lists(windows(), min_size=1, max_size=20))
def test_numbers_are_written_as_one_by_one(given_windows) -> None:
    rows, expected = np.zeros((len(given_windows), m.WINDOW), np.int64), []
    for row, (columns, turnover) in zip(rows, given_windows, strict=True):
        for column, value in columns.items():
            row[column] = value
        row[m.TURNOVER], row[m.TURNOVER_LOW : m.TURNOVER_LOW + 1].view(np.uint64)[:] = (
            turnover >> 64,
            turnover & (2**64 - 1),
        )
        expected += [render_one(columns[column] * UNIT) for column in (*PRICES, *SUMS)]
        exact, volume = turnover * UNIT * UNIT, columns[m.VOLUME] * UNIT
        expected.append(render_one(exact, TURNOVER_SCALE) if turnover >> 64 < 10**18 else "")
        expected.append(render_one(divide(exact, volume)) if volume else "")
    texts, ends = np.empty(len(rows) * WIDTH, np.uint8), np.empty(len(rows) * TEXTS, np.int64)
    text = texts[: render(rows, texts, ends)].tobytes().decode()
    begins = [0, *ends.tolist()][:-1]
    assert [text[begin:end] for begin, end in zip(begins, ends.tolist(), strict=True)] == expected
