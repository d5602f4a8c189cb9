"""Instruments are found by the bytes of their names."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codecs import roster
from schemas.codecs.roster import Roster, Texts
from schemas.codecs.spans import PAD
from schemas.errors import BadTick
from schemas.trade import instrument

Spelled = tuple[str, str]


def find(its: Roster, names: list[Spelled], key=lambda text: hash(text) % 2**63) -> list[Spelled]:
    """Venue and symbol of each, as it has them; `key` is the hash of a name."""
    data, columns = b"", []
    for which in (0, 1):
        texts = [spelled[which].encode() for spelled in names]
        starts = []
        for text in texts:
            starts.append(len(data))
            data += text
        columns.append(
            Texts(
                *(
                    np.array(column, np.int64)
                    for column in (list(map(key, texts)), starts, list(map(len, texts)))
                )
            )
        )
    present, code = its.find(data + PAD, *columns)
    assert len(set(present.tolist())) == len(present), "each once"
    assert list(dict.fromkeys(code.tolist())) == list(range(len(present))), "in the order in which they come"
    return [its.instruments[number] for number in present[code].tolist()]


spellings = st.tuples(
    st.sampled_from(["", "V", "WW"]),
    st.text("ABC", min_size=1, max_size=9) | st.sampled_from(["Ä", "😀" * 9]),
)


@settings(deadline=None)
@given(st.lists(st.lists(spellings, max_size=30), max_size=5))
def test_names_are_found_again_in_any_batch(batches) -> None:
    its = Roster("")
    for batch in batches:
        assert find(its, batch) == batch
    assert len(set(its.instruments)) == len(its.instruments)


@pytest.mark.parametrize("key", [0, 5, 2**62])
def test_names_of_one_hash_are_told_apart(key) -> None:
    """By their bytes, those of symbols and of venues, and by their widths."""
    its = Roster("")
    batch = [("", "A"), ("", "B"), ("V", "A"), ("W", "A"), ("", "AA"), ("V", "AA"), ("", "A"), ("W", "A")]
    for _ in range(2):
        assert find(its, batch, lambda text: key) == batch
    assert len(its.instruments) == 6


def test_thousands_of_names_are_found_after_the_table_has_grown() -> None:
    its = Roster("V")
    names = [("", f"S{n}") for n in range(5000)]
    for count in (1, 10, 5000):
        assert find(its, names[:count]) == [("V", symbol) for _, symbol in names[:count]]
    assert find(its, names[::-1]) == [("V", symbol) for _, symbol in names[::-1]]
    assert len(its.instruments) == 5000


def test_two_spellings_of_one_instrument_have_one_number() -> None:
    its = Roster("")
    assert instrument("V", "A") == instrument("", "V:A")
    assert find(its, [("V", "A"), ("", "V:A"), ("V", "A")]) == [("V", "A")] * 3


def test_the_numbers_of_batches_begin_anew() -> None:
    with mock.patch.object(roster, "_BATCHES", 2):
        its = Roster("")
        for batch in ([("", "A"), ("", "B")], [("", "B")], [("", "B"), ("", "A")], [("", "A")], [("", "B")]):
            assert find(its, batch) == batch


@pytest.mark.parametrize("symbol", ["", "x" * 300, "a\0"])
def test_a_name_that_is_none_is_refused_and_changes_nothing(symbol) -> None:
    its = Roster("")
    find(its, [("", "A")])
    with pytest.raises(BadTick):
        find(its, [("", "B"), ("", symbol)])
    assert its.instruments == [("", "A")]
    assert find(its, [("", "B"), ("", "A")]) == [("", "B"), ("", "A")]


def test_bytes_that_are_no_text_are_refused() -> None:
    its = Roster("")
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    with pytest.raises(UnicodeDecodeError):
        its.find(b"\xff" + PAD, Texts(zero, zero, zero), Texts(one, zero, one))
