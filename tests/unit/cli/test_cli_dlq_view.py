"""Dead letters as people and machines see them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from schemas.dead_letter import HEADER, DeadLetter, Reason, encode_dead_letter
from streams.cli.dlq_view import as_object, as_row, hexdump, json_line, print_rows, visible, whole
from streams.dead_letters import Buried


def buried(
    value: bytes | None = b"{}", key: bytes | None = b"K", *, ours: bool = True, **changes: Any
) -> Buried:
    fields: dict[str, Any] = {"reason": Reason.late, "detail": "8 s behind", "topic": "ticks", "partition": 3}
    letter = DeadLetter(**{**fields, "offset": 55, "index": 1, "ts": 1723161600.25, **changes})
    headers = [("trace", b"\xff1")] + [(HEADER, encode_dead_letter(letter))] * ours
    return Buried("dlq", 3, 17, 1723161600300, key, value, headers)


def test_a_row_says_where_it_is_and_where_it_came_from() -> None:
    assert json.loads(json_line(as_row(buried(source="a.csv:7", timestamp_ms=5)))) == {
        "where": "dlq[3]@17",
        "when": "2024-08-09T00:00:00Z",
        "when_ns": 1723161600250000000,
        "reason": "late",
        "detail": "8 s behind",
        "topic": "ticks",
        "partition": 3,
        "offset": 55,
        "index": 1,
        "timestamp_ms": 5,
        "source": "a.csv:7",
        "replayed": None,
        "key": "K",
        "bytes": 2,
    }


def test_a_row_of_others_says_so_and_nothing_else() -> None:
    row = as_row(buried(ours=False, key=None, value=None))

    assert row["detail"] == "not Tidegate's: it has no header tidegate"
    assert (row["where"], row["key"], row["bytes"]) == ("dlq[3]@17", None, 0)
    assert {row[name] for name in ("reason", "topic", "partition", "offset", "index", "replayed")} == {None}


@pytest.mark.parametrize("value", [b"{}", b"\x00\xff", b"", None])
def test_an_object_holds_every_byte(value: bytes | None) -> None:
    found = as_object(buried(value, b"\xfe"))

    assert found["value_base64"] == (None if value is None else base64.b64encode(value).decode())
    assert found["value"] == (None if value is None or b"\xff" in value else value.decode())
    assert found["key_base64"] == "/g=="
    assert [header["name"] for header in found["headers"]] == ["trace", "tidegate"]


def test_the_table_takes_brackets_and_commands_for_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([as_row(buried(detail="[red]boo[/red] \x1b[2J", key=b"\x1b]0;x\x07", source="a.csv:7"))])

    out = capsys.readouterr().out
    assert "[red]boo[/red] \\x1b[2J" in out
    assert "\\x1b]0;x\\x07" in out
    assert "ticks[3]@55#1 a.csv:7" in out
    assert "\x1b" not in out
    assert "replayed as" not in out


def test_the_table_shows_what_came_back_and_what_is_not_tidegates(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([as_row(buried(replayed="ticks[3]@99", detail="x" * 500)), as_row(buried(ours=False))])

    head, one, other = capsys.readouterr().out.splitlines()
    assert "replayed as" in head
    assert "ticks[3]@99" in one
    assert len(one) < 250
    assert "(not Tidegate's)" in other


def test_the_whole_is_text_where_the_bytes_are() -> None:
    text = whole(buried(b'{"price": "\xc3\xa9"}\n', replayed="ticks[3]@99", timestamp_ms=1723161600300))

    assert text.startswith("where       dlq[3]@17\n")
    assert "from        ticks[3]@55#1\n" in text
    assert "timestamp   2024-08-09T00:00:00Z (1723161600300 ms)\n" in text
    assert "replayed as ticks[3]@99, and refused again\n" in text
    assert "header      trace = \\xff1\n" in text
    assert '\nvalue       16 bytes\n\n{"price": "é"}\n' in text


@pytest.mark.parametrize("value", [b"\x00\xff garbage", b"\x1b[2J text with a command"])
def test_the_whole_is_dumped_where_the_bytes_are_no_text(value: bytes) -> None:
    text = whole(buried(value))

    assert "00000000  " in text
    assert "\x1b" not in text


def test_the_whole_of_a_tombstone_and_of_others() -> None:
    assert "none: the record is a tombstone" in whole(buried(None))
    assert "(not Tidegate's): not Tidegate's: it has no header" not in whole(buried(ours=False))
    assert "reason      not Tidegate's: it has no header tidegate" in whole(buried(ours=False))


def test_a_dump_gives_offsets_bytes_and_what_is_ascii() -> None:
    assert list(hexdump(bytes(range(60, 78)) + b"\xff")) == [
        "00000000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK",
        "00000010  4c 4d ff                                         LM.",
    ]
    assert list(hexdump(b"")) == []


def test_no_text_is_a_command_for_the_terminal() -> None:
    assert visible("é\x1b\u202e\n") == "é\\x1b\\u202e\\n"
