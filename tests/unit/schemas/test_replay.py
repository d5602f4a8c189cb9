"""The header that takes a dead letter back to its topic."""

import pytest

from schemas.dead_letter import HEADER, DeadLetter, Reason, encode_dead_letter
from schemas.errors import BadRecord
from schemas.replay import (
    REPLAY_HEADER,
    Replay,
    encode_replay,
    find_replay,
    headers_of_dead_letter,
    headers_of_replay,
)


def letter(reason: Reason, index: int = 0) -> DeadLetter:
    return DeadLetter(reason=reason, detail="", topic="t", partition=3, offset=17, index=index, ts=1.0)


@pytest.mark.parametrize("reason", list(Reason))
def test_only_what_is_late_or_ahead_is_one_trade_of_a_record(reason: Reason) -> None:
    one = reason in (Reason.late, Reason.future)

    assert Replay.of(letter(reason, 2)) == Replay("t", 3, 17, 2 if one else None)


def test_it_is_json_without_an_index_where_the_whole_record_was_refused() -> None:
    assert encode_replay(Replay("t", 3, 17)) == b'{"topic":"t","partition":3,"offset":17}'
    assert encode_replay(Replay("t", 3, 17, 0)) == b'{"topic":"t","partition":3,"offset":17,"index":0}'


def test_it_is_found_among_headers() -> None:
    replay = Replay("t", 3, 17, 2)
    headers = [("a", None), (REPLAY_HEADER, encode_replay(replay)), ("b", b"")]

    assert find_replay(headers) == replay
    assert find_replay([("a", b"1")]) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"\xff",
        b"[1]",
        b'{"topic":"t","partition":-1,"offset":0}',
        b'{"topic":"t","offset":0}',
    ],
)
def test_one_that_cannot_be_read_is_a_bad_record(value: bytes | None) -> None:
    with pytest.raises(BadRecord, match=REPLAY_HEADER):
        find_replay([(REPLAY_HEADER, value)])


def test_a_trade_is_known_by_where_it_was_first() -> None:
    assert Replay("md.ticks.v1", 3, 17, 2).identity(2) == "replay:md.ticks.v1[3]@17#2"


def test_there_and_back_the_headers_are_those_of_the_original() -> None:
    original = [("trace", b"1"), (HEADER, b"its own"), ("trace", None)]
    buried = headers_of_dead_letter(original, encode_dead_letter(letter(Reason.late)))
    replayed = headers_of_replay(buried, Replay.of(letter(Reason.late)))
    again = headers_of_dead_letter(replayed, b"letter")

    assert replayed[:-1] == original
    assert again == [*original, (HEADER, b"letter")]
