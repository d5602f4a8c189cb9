from __future__ import annotations

import sys
from pathlib import Path

import pytest

from schemas.codecs.csv import COLUMNS
from schemas.errors import SourceError
from streams.sources import Keyer, Line, Source

TICK = b"TSLA,1723161240000000000,,200.1,1,1,buy,"


@pytest.mark.parametrize("symbol", [b"TSLA", b"TIMEUSDT", b"PRICEUSDT"])
def test_a_first_line_that_is_a_tick_is_no_header_whatever_its_symbol(symbol: bytes) -> None:
    line = TICK.replace(b"TSLA", symbol)
    assert not Keyer("csv", "").is_header(Line("t.csv", 1, line, len(line)))


@pytest.mark.parametrize("first", [COLUMNS.encode(), TICK])
def test_a_byte_order_mark_is_no_part_of_the_first_line(first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + first + b"\n" + TICK + b"\n")
    assert [line.value for line in Source(str(path)).lines()] == [first, TICK]


def test_a_closed_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match=r"<stdin>: it is closed"):
        Source("-")
