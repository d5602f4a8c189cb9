"""Which dead letters are meant, and where they are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from schemas.dead_letter import HEADER, DeadLetter, Reason, encode_dead_letter
from streams.dead_letters import Buried, Selection, Where

DLQ = "md.ticks.dlq.v1"
TS = 1_723_161_600


def letter(**changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "reason": Reason.late,
        "detail": "late",
        "topic": "md.ticks.v1",
        "ts": float(TS),
    }
    return DeadLetter(**{**fields, "partition": 3, "offset": 55, **changes})


def buried(header: bytes | None, stamp_ms: int | None = TS * 1000 + 7, partition: int = 3) -> Buried:
    headers = [("trace", b"1"), (HEADER, header)] if header is not None else [("trace", b"1")]
    return Buried(DLQ, partition, 17, stamp_ms, b"K", b"V", headers)


OURS = buried(encode_dead_letter(letter()))
FOREIGN = buried(None)


def test_one_of_tidegates_says_what_it_was() -> None:
    assert (OURS.letter, OURS.problem, OURS.where) == (letter(), "", f"{DLQ}[3]@17")
    assert OURS.when_ns == TS * 10**9
    assert OURS.letter is not None
    assert OURS.letter.origin == "md.ticks.v1[3]@55#0"


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (None, "not Tidegate's: it has no header tidegate"),
        (b"", "its header tidegate cannot be read"),
        (b'{"reason":"nonsense"}', "its header tidegate cannot be read"),
    ],
)
def test_one_that_is_not_says_why(header: bytes | None, problem: str) -> None:
    found = buried(header)

    assert found.letter is None
    assert found.problem.startswith(problem)
    assert found.when_ns == (TS * 1000 + 7) * 10**6
    assert buried(header, None).when_ns is None


def test_the_last_header_is_tidegates() -> None:
    headers = [(HEADER, b"its own"), (HEADER, encode_dead_letter(letter()))]

    assert Buried(DLQ, 0, 0, None, None, None, headers).letter == letter()


@pytest.mark.parametrize(
    ("asked", "ours", "foreign"),
    [
        ({}, True, True),
        ({"reasons": frozenset({Reason.late, Reason.future})}, True, False),
        ({"reasons": frozenset({Reason.future})}, False, False),
        ({"topic": "md.ticks.v1"}, True, False),
        ({"topic": DLQ}, False, False),
        ({"partition": 3}, True, True),
        ({"partition": 0}, False, False),
        ({"since_ns": TS * 10**9}, True, True),
        ({"since_ns": TS * 10**9 + 10**6}, False, True),
        ({"until_ns": TS * 10**9}, False, False),
        ({"until_ns": TS * 10**9 + 10**6}, True, False),
        ({"topic": "md.ticks.v1", "partition": 0}, False, False),
    ],
)
def test_every_condition_must_hold(asked: dict[str, Any], ours: bool, foreign: bool) -> None:
    assert (Selection(**asked).takes(OURS), Selection(**asked).takes(FOREIGN)) == (ours, foreign)
    assert Selection(**asked).is_everything is (not asked)


def test_what_has_no_time_is_not_of_any_time() -> None:
    assert not Selection(since_ns=1).takes(buried(None, None))
    assert not Selection(until_ns=2**62).takes(buried(None, None))


@pytest.mark.parametrize("text", [f"{DLQ}[3]@17", "[3]@17", "3@17", f" {DLQ}[3]@17 "])
def test_a_place_is_read_as_it_is_printed_or_without_the_topic(text: str) -> None:
    assert Where.parse(text, DLQ) == Where(DLQ, 3, 17)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no place: write md.ticks.dlq.v1[0]@17, or 0@17 for short"),
        ("17", "is no place"),
        (f"{DLQ}[3]", "is no place"),
        (f"{DLQ}3@17", "is no place"),
        (f"{DLQ}[-1]@17", "is no place"),
        ("3@-1", "is no place"),
        ("3@١٧", "is no place"),
        ("3@" + "9" * 40, "is no place"),
        ("x" * 500, "is no place"),
        ("md.ticks.v1[3]@17", "md.ticks.v1 is not the topic of dead letters, which is md.ticks.dlq.v1"),
        ("md.ticks.v1[3]@17#0", "is where a record came from; WHERE is where its dead letter is"),
    ],
)
def test_what_is_no_place_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        Where.parse(text, DLQ)
    assert len(str(refused.value)) < 200
