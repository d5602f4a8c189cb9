"""Ticks and bars in Avro: exact, for no number passes through a float.

Logical types are read here, not by fastavro, which rounds decimals to their declared precision and makes
datetimes of times.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from schemas.bar import Bar, BarModel
from schemas.errors import BadRecord, RegistryError
from schemas.fixed import render
from schemas.tick import Tick
from streams.extras import need

#: Powers of ten between a time of that logical type and one in ns.
_TIMES: Final = {
    f"{kind}timestamp-{unit}": factor
    for unit, factor in (("millis", 10**6), ("micros", 10**3), ("nanos", 1))
    for kind in ("", "local-")
}
_TIME_FIELDS: Final = frozenset({"ts_ns", "recv_ns"})
_NEEDED: Final = tuple(name for name, field in Tick.model_fields.items() if field.is_required())

_Convert = Callable[[Any], Any]


def tick_reader(schema: str) -> Callable[[bytes], bytes]:
    """From Avro to Tidegate's own JSON of a tick; its fields are found by their names, others are passed over.

    Price and size are strings, decimals or integers; times are ns, or timestamps of any unit. What it
    gives raises `BadRecord`. Raises `RegistryError` for a schema that no tick can be read by.
    """
    tree = _record(schema)
    read = _reader(tree)  # refuses what is no Avro: the rest is as it must be
    named = {_last(str(node["name"])): node for node in _nodes(tree) if "name" in node and "type" in node}
    fields = {field["name"]: field["type"] for field in tree["fields"]}
    if missing := [name for name in _NEEDED if name not in fields]:
        raise RegistryError(f"it has no field {', '.join(missing)}")
    converts = {name: _converts(name, fields[name], named) for name in Tick.model_fields if name in fields}

    def convert(payload: bytes) -> bytes:
        record = read(payload)
        try:
            return msgspec.json.encode(
                {name: by[type(value := record[name])](value) for name, by in converts.items()}
            )
        except (KeyError, ValueError, OverflowError) as exc:
            raise BadRecord(f"Avro that holds no tick: {exc!r}") from None

    return convert


def bar_schema() -> str:
    """The Avro schema of a bar: the fields of its JSON. Numbers stay decimal strings, which are exact."""
    fields = []
    for field in msgspec.structs.fields(Bar):
        info = msgspec.inspect.type_info(field.type)
        parts = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
        kinds = sorted((_KINDS[type(part)] for part in parts), key=lambda kind: kind != "null")
        doc = BarModel.model_fields[field.name].description
        made = {"name": field.name, "type": kinds if len(kinds) > 1 else kinds[0], "doc": doc}
        fields.append(made | {"default": None} if "null" in kinds else made)
    return json.dumps(
        {"type": "record", "name": "Bar", "namespace": "tidegate", "doc": _first_line(), "fields": fields}
    )


_KINDS: Final[Mapping[type, str]] = {
    msgspec.inspect.NoneType: "null",
    msgspec.inspect.StrType: "string",
    msgspec.inspect.IntType: "long",
    msgspec.inspect.BoolType: "boolean",
}


def _first_line() -> str:
    return (BarModel.__doc__ or "").splitlines()[0]


def bar_writer() -> Callable[[Bar], bytes]:
    """Bars to Avro by `bar_schema`."""
    fastavro = need("registry", "fastavro", "Avro")
    parsed = fastavro.parse_schema(json.loads(bar_schema()))
    write = fastavro.schemaless_writer

    def encode(bar: Bar) -> bytes:
        out = io.BytesIO()
        write(out, parsed, msgspec.structs.asdict(bar))
        return out.getvalue()

    return encode


def bar_reader(schema: str) -> Callable[[bytes], Bar]:
    """From Avro to a bar, by Avro's rules where it was written by another version of the schema.

    What it gives raises `BadRecord`. Raises `RegistryError` for a schema that no bar can be read by.
    """
    read = _reader(_record(schema), json.loads(bar_schema()))

    def decode(payload: bytes) -> Bar:
        try:
            return msgspec.convert(read(payload), Bar)
        except msgspec.ValidationError as exc:
            raise BadRecord(f"not a bar: {exc}") from None

    return decode


def _record(schema: str) -> dict[str, Any]:
    """Raises `RegistryError` unless the schema is one of a record."""
    try:
        tree = json.loads(schema)
    except (ValueError, RecursionError) as exc:
        raise RegistryError(f"it is no JSON: {exc}") from None
    if not isinstance(tree, dict) or tree.get("type") != "record" or not isinstance(tree.get("fields"), list):
        raise RegistryError("it is of no record with fields")
    return tree


def _reader(written: dict[str, Any], wanted: dict[str, Any] | None = None) -> Callable[[bytes], Any]:
    fastavro = need("registry", "fastavro", "Avro")
    try:
        parsed = fastavro.parse_schema(_plain(written))
        own = wanted and fastavro.parse_schema(_plain(wanted))
    except Exception as exc:  # of many families: a schema is whatever somebody has registered
        raise RegistryError(f"it is no Avro: {exc!r}") from None

    def read(payload: bytes) -> Any:
        stream = io.BytesIO(payload)
        try:
            record = fastavro.schemaless_reader(stream, parsed, own)
        except Exception as exc:  # of many families: EOFError, IndexError, struct.error, ...
            raise BadRecord(f"not Avro of its schema: {exc!r}") from None
        if rest := len(payload) - stream.tell():
            raise BadRecord(f"not Avro of its schema: {rest} bytes too long")
        return record

    return read


def _plain(node: Any) -> Any:
    """The same schema without logical types."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != "logicalType"}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(child)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _same(value: Any) -> Any:
    return value


def _decimal(scale: int, value: bytes) -> str:
    return render(int.from_bytes(value, "big", signed=True), scale)


def _ns(factor: int, value: int) -> int:
    return value * factor


def _converts(name: str, kind: Any, named: Mapping[str, dict[str, Any]]) -> dict[type, _Convert]:
    """By the type that fastavro gives, what makes the value of a tick's field of it."""
    found: dict[type, _Convert] = {}
    for branch in kind if isinstance(kind, list) else [kind]:
        given, convert = _branch(name, branch, named)
        if found.setdefault(given, convert) is not convert:
            raise RegistryError(f"its field {name} is a union of two types that mean different things")
    return found


def _branch(name: str, branch: Any, named: Mapping[str, dict[str, Any]]) -> tuple[type, _Convert]:
    node = branch if isinstance(branch, dict) else {"type": branch}
    if isinstance(node["type"], dict):
        return _branch(name, node["type"], named)
    kind, logical = node["type"], node.get("logicalType")
    if isinstance(kind, str) and _last(kind) in named:
        node = named[_last(kind)]
        kind, logical = node["type"], node.get("logicalType")
    match kind:
        case "null":
            return type(None), _same
        case "string" | "enum":
            return str, _same
        case "int" | "long" if logical in _TIMES and name in _TIME_FIELDS:
            factor = _TIMES[logical]
            return int, _same if factor == 1 else partial(_ns, factor)
        case "int" | "long":
            return int, _same
        case "bytes" | "fixed" if logical == "decimal":
            scale = node.get("scale", 0)
            if not isinstance(scale, int) or not 0 <= scale <= 1000:
                raise RegistryError(f"its field {name} is a decimal of scale {scale!r}")
            return bytes, partial(_decimal, scale)
        case "float" | "double":
            raise RegistryError(
                f"its field {name} is a {kind}, which is not exact: make it a decimal or a string"
            )
    raise RegistryError(f"its field {name} is of type {kind!r}, which no tick has there")
