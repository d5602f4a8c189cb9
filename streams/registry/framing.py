"""Confluent's wire format: a zero, the id of a schema as 4 bytes, big-endian, and the payload.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from schemas.errors import BadRecord

MAGIC: Final = 0
_HEAD: Final = struct.Struct(">Bi")
HEAD_BYTES: Final = _HEAD.size


class Frame(NamedTuple):
    """What a framed value holds."""

    id: int
    payload: bytes


def frame(number: int, payload: bytes) -> bytes:
    """A value that says which schema its payload is of."""
    return _HEAD.pack(MAGIC, number) + payload


def is_framed(value: bytes) -> bool:
    """Whether a value can be told from JSON and CSV by its first byte."""
    return value[:1] == b"\0"


def unframe(value: bytes) -> Frame:
    """Raises `BadRecord` for what is no frame."""
    return Frame(schema_id(value), value[_HEAD.size :])


def schema_id(value: bytes) -> int:
    """The id alone. Raises `BadRecord` for what is no frame."""
    if not is_framed(value):
        raise BadRecord(f"not framed: it begins with {value[:1]!r}, not with a zero and the id of a schema")
    if len(value) <= _HEAD.size:
        raise BadRecord(f"not framed: {len(value)} bytes hold no id of a schema and a payload")
    found: int = _HEAD.unpack_from(value)[1]
    if found < 0:
        raise BadRecord(f"not framed: {found} is no id of a schema")
    return found
