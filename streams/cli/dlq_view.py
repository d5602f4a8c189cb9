"""Dead letters as text: rows of a table, JSON, and one of them whole."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from schemas.dead_letter import place
from streams.cli.output import new_table, print_table
from streams.cli.times import iso
from streams.dead_letters import Buried

Row = dict[str, Any]

_SHORT = 72
_WIDTH = 16
NOT_OURS = "(not Tidegate's)"


def as_row(buried: Buried) -> Row:
    """One dead letter for machines, without its bytes."""
    letter, when_ns = buried.letter, buried.when_ns
    row: Row = {
        "where": buried.where,
        "when": None if when_ns is None else iso(when_ns),
        "when_ns": when_ns,
        "reason": letter and letter.reason.value,
        "detail": letter.detail if letter else buried.problem,
    }
    for name in ("topic", "partition", "offset", "index", "timestamp_ms", "source", "replayed"):
        row[name] = letter and getattr(letter, name)
    return {**row, "key": _readable(buried.key), "bytes": len(buried.value or b"")}


def json_line(row: Row) -> str:
    """A row as it is printed for machines."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def as_object(buried: Buried) -> dict[str, Any]:
    """One dead letter for machines, with every byte of it."""
    headers = [{"name": name, "value": text_of(value)} for name, value in buried.headers]
    return {
        **as_row(buried),
        "headers": headers,
        "value": text_of(buried.value),
        "key_base64": _base64(buried.key),
        "value_base64": _base64(buried.value),
    }


def print_rows(rows: Sequence[Row]) -> None:
    """A table for people; where rows have a `to`, with that."""
    names = ["where", "when", "reason", "from", "replayed as", "to", "key", "detail"]
    for name, row_name in (("replayed as", "replayed"), ("to", "to")):
        if not any(row.get(row_name) for row in rows):
            names.remove(name)
    table = new_table(*names)
    for row in rows:
        cells = {name: row.get(name) or "-" for name in names}
        cells["replayed as"] = row["replayed"] or "-"
        cells["detail"] = shortened(row["detail"])
        if row["reason"] is None:
            cells["reason"] = NOT_OURS
        else:
            origin = f"{place(row['topic'], row['partition'], row['offset'])}#{row['index']}"
            cells["from"] = f"{origin} {row['source']}" if row["source"] else origin
        # As text, for a table takes brackets for colours.
        table.add_row(*(Text(visible(cells[name])) for name in names))
    print_table(table)


def whole(buried: Buried) -> str:
    """One dead letter for people, with its bytes: as text where they are text."""
    letter, when_ns = buried.letter, buried.when_ns
    lines = {"where": buried.where, "when": "-" if when_ns is None else iso(when_ns)}
    if letter is None:
        lines["reason"] = buried.problem
    else:
        lines |= {"reason": letter.reason.value, "detail": letter.detail, "from": letter.origin}
        if letter.timestamp_ms is not None:
            lines["timestamp"] = f"{iso(letter.timestamp_ms * 10**6)} ({letter.timestamp_ms} ms)"
        if letter.source is not None:
            lines["source"] = letter.source
        if letter.replayed is not None:
            lines["replayed as"] = f"{letter.replayed}, and refused again"
    lines["key"] = shown(buried.key)
    text = [f"{name:<12}{visible(value)}" for name, value in lines.items()]
    text += [f"{'header':<12}{visible(name)} = {shown(value)}" for name, value in buried.headers]
    if buried.value is None:
        return "\n".join([*text, "value       none: the record is a tombstone\n"])
    text.append(f"{'value':<12}{len(buried.value):,} bytes")
    return "\n".join([*text, "", *_lines(buried.value), ""])


def text_of(value: bytes | None) -> str | None:
    """What can be read of bytes: None where they are none, or no text."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def shown(value: bytes | None) -> str:
    """Bytes in a line, for people."""
    return visible(_readable(value) or "-")


def visible(text: str) -> str:
    """Text that a terminal takes for no command."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """As much of it as a table has room for."""
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def hexdump(value: bytes) -> Iterable[str]:
    """Sixteen bytes a line: their offset, themselves, and what of them is ASCII."""
    for at in range(0, len(value), _WIDTH):
        some = value[at : at + _WIDTH]
        seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in some)
        yield f"{at:08x}  {some.hex(' '):<{3 * _WIDTH - 1}}  {seen}"


def _lines(value: bytes) -> Iterable[str]:
    text = text_of(value)
    if text is not None and all(c.isprintable() or c in "\n\t" for c in text):
        return [text]
    return hexdump(value)


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
