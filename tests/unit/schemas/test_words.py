"""Bytes eight at a time: what a loop over each text by itself gives, or Unfit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codecs.words import PAD, Ints, Text, Unfit

pieces = st.one_of(
    st.binary(max_size=30),
    st.text("0123456789", max_size=21).map(str.encode),
    st.text("01289./:x\x80", max_size=12).map(str.encode),
    st.sampled_from([b"", b"0", b"9" * 19, b"9223372036854775807", b"9223372036854775808", b"1" * 64]),
)
texts = st.lists(pieces, min_size=1, max_size=6)
printable = st.lists(
    st.one_of(st.sampled_from([b"buy", b"sell", b"", b"buys"]), st.text(max_size=20).map(str.encode)).filter(
        lambda text: not text or min(text) >= 32
    ),
    min_size=1,
    max_size=8,
)


def laid_out(found: list[bytes]) -> tuple[Text, Ints, Ints]:
    """Texts in a row, where each begins and how long it is."""
    width = np.array([len(text) for text in found])
    start = PAD + np.cumsum(width) - width
    return Text(b" " * PAD + b"".join(found) + b" " * PAD), start, width


@given(texts, st.sampled_from([b".", b'"', b"0", b"\x80", b"\xff", b"\0"]), st.sampled_from([0, 1, 8, 16]))
def test_a_byte_is_found_where_it_is_first(found, byte, skip) -> None:
    text, start, width = laid_out(found)
    there = [piece.find(byte, skip) for piece in found]
    expected = [len(piece) if at < 0 else at for at, piece in zip(there, found, strict=True)]
    got = text.find(start, byte[0], width, skip).tolist()
    assert [max(a, skip) for a in got] == [max(a, skip) for a in expected]


def test_what_is_very_far_is_not_looked_for() -> None:
    text, start, width = laid_out([b"x" * 2000 + b"y"])
    with pytest.raises(Unfit):
        text.find(start, ord("y"), width)


@given(texts, st.binary(min_size=1, max_size=20))
def test_a_constant_must_stand_everywhere(found, constant) -> None:
    for at in range(len(found) + 1):
        rows = [constant] * at + found[at:]
        text, start, _ = laid_out([row.ljust(20) for row in rows])
        if all(row.ljust(20).startswith(constant) for row in rows):
            text.must_be(start, constant)
        else:
            with pytest.raises(Unfit):
                text.must_be(start, constant)


@given(texts)
def test_a_whole_number_is_what_python_reads_without_sign_or_zeros(found) -> None:
    text, start, width = laid_out(found)
    if all(re.fullmatch(rb"0|[1-9][0-9]*", piece) and int(piece) < 2**63 for piece in found):
        assert text.whole(start, width).tolist() == list(map(int, found))
    else:
        with pytest.raises(Unfit):
            text.whole(start, width)


@given(texts)
def test_digits_may_begin_with_zeros_or_be_none(found) -> None:
    text, start, width = laid_out(found)
    good = [re.fullmatch(rb"[0-9]{0,19}", piece) and int(piece or b"0") < 2**63 for piece in found]
    if all(good):
        assert text.digits(start + width, width).tolist() == [int(piece or b"0") for piece in found]
    else:
        with pytest.raises(Unfit):
            text.digits(start + width, width)


@given(printable)
def test_equal_texts_have_one_number(found) -> None:
    text, start, width = laid_out(found)
    code, first = text.codes(start, width)
    assert [found[at] for at in first[code].tolist()] == found
    assert len(set(found)) == len(first)


@given(printable)
def test_one_of_some_texts_is_chosen(found) -> None:
    text, start, width = laid_out(found)
    known = {b"buy": 1, b"sell": -1, b"": 5}
    if set(found) <= known.keys():
        assert text.choose(start, width, known).tolist() == [known[piece] for piece in found]
    else:
        with pytest.raises(Unfit):
            text.choose(start, width, known)
