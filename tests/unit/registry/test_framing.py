"""Confluent's frame, and ticks in it."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from schemas.codecs import get_codec
from schemas.dead_letter import Reason
from schemas.errors import BadRecord, BadTick, RegistryError
from schemas.health import HealthState
from streams.batch import Batch, Ledger
from streams.registry.codec import FramedCodec
from streams.registry.confluent import ConfluentRegistry, Schema
from streams.registry.frames import Frames
from streams.registry.framing import frame, schema_id, unframe

TICK = {"symbol": "A", "ts_ns": 1_723_161_255_342_000_000, "price": "1.5", "size": "2"}
KNOWN = 7


def value(number: int = 0, schema: int = KNOWN, **changes: object) -> bytes:
    return frame(schema, json.dumps({**TICK, "trade_id": number, **changes}).encode())


@given(st.integers(0, 2**31 - 1), st.binary(min_size=1))
def test_a_frame_gives_back_what_was_put_into_it(number: int, payload: bytes) -> None:
    framed = frame(number, payload)
    assert framed[0] == 0
    assert framed[1:5] == struct.pack(">I", number)
    assert unframe(framed) == (number, payload)


@given(st.binary())
def test_garbage_is_a_frame_or_a_bad_record(garbage: bytes) -> None:
    try:
        number, payload = unframe(garbage)
    except BadRecord:
        return
    assert frame(number, payload) == garbage
    assert schema_id(garbage) == number


class Asked:
    """A registry that has one schema of JSON, and answers when it is there."""

    url = "http://registry"

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.away = 0

    async def schema(self, number: int) -> Schema | None:
        self.asked.append(number)
        if self.away:
            self.away -= 1
            raise RegistryError("no answer")
        return Schema("JSON", "{}") if number == KNOWN else None


def frames_of(registry: Asked) -> Frames[bytes]:
    def read(schema: Schema) -> Callable[[bytes], bytes]:
        return lambda payload: payload

    return Frames("ticks", cast("ConfluentRegistry", registry), read)


def batch_of(*values: bytes | None) -> Batch:
    records: list[Any] = [SimpleNamespace(offset=n, value=v) for n, v in enumerate(values)]
    return Ledger().deliver(TP("ticks", 0), records)


async def learnt(*values: bytes | None) -> tuple[Frames[bytes], Asked]:
    registry = Asked()
    frames = frames_of(registry)
    await frames.learn(batch_of(*values))
    return frames, registry


async def test_an_id_is_asked_for_once_however_many_records_have_it() -> None:
    batch = batch_of(*[value(n) for n in range(50)], value(schema=8), b"{}", b"\0\0", None)
    registry = Asked()
    frames = frames_of(registry)
    assert not frames.knows(batch)
    for _ in range(3):
        await frames.learn(batch)
    assert registry.asked == [KNOWN, 8]
    assert not frames.knows(batch)  # another node of the registry may have 8 soon
    assert frames.knows(batch_of(value(), b"{}", None))


async def test_an_id_that_the_registry_does_not_have_is_the_fault_of_its_record_alone() -> None:
    frames, _ = await learnt(value(), value(schema=8))
    assert frames.open(value()) == value()[5:]
    with pytest.raises(BadRecord, match="schema 8: the registry has no schema of this id"):
        frames.open(value(schema=8))


async def test_a_registry_that_is_away_is_waited_for_and_health_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.registry.frames.RETRY_S", 0.0)
    registry = Asked()
    registry.away = 3
    frames = frames_of(registry)
    seen = []
    ask = registry.schema

    async def watched(number: int) -> Schema | None:
        seen.append(frames.health().state)
        return await ask(number)

    monkeypatch.setattr(registry, "schema", watched)
    await frames.learn(batch_of(value()))
    assert seen == [HealthState.healthy, *[HealthState.degraded] * 3]
    assert frames.health().state is HealthState.healthy
    assert frames.open(value())


async def test_a_batch_whose_partition_has_gone_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.registry.frames.RETRY_S", 0.0)
    registry = Asked()
    registry.away = 10**9
    ledger = Ledger()
    batch = ledger.deliver(TP("ticks", 0), [SimpleNamespace(offset=0, value=value())])
    timer = threading.Timer(0.05, ledger.forget)
    timer.start()
    await frames_of(registry).learn(batch)
    timer.join()
    assert batch.void


async def test_the_codec_reads_framed_ticks_as_it_reads_plain_ones() -> None:
    values = [value(n, price=f"{n}.25") for n in range(600)]
    frames, _ = await learnt(*values)
    plain, framed = get_codec("tidegate"), FramedCodec(get_codec("tidegate"), frames)
    bare = [v[5:] for v in values]
    assert [framed.decode(v) for v in values] == [plain.decode(v) for v in bare]
    assert framed.decode_run(values, 3) == plain.decode_run(bare, 3)
    columns = framed.read_columns(values)
    assert columns is not None
    assert columns.price.tolist() == plain.read_columns(bare).price.tolist()  # type: ignore[union-attr]


async def test_a_run_ends_at_what_is_no_frame_and_the_codec_says_why() -> None:
    values: list[bytes | None] = [value(0), value(1), value(2)[5:], value(3), None]
    frames, _ = await learnt(*values)
    codec = FramedCodec(get_codec("tidegate", "V"), frames)
    assert codec.venue == "V"
    assert len(codec.decode_run(values, 0)) == 2
    assert codec.read_columns(values) is None
    assert len(codec.decode_run(values, 3)) == 1
    with pytest.raises(BadTick, match="not framed") as caught:
        codec.decode(values[2])
    assert caught.value.reason is Reason.malformed
    with pytest.raises(BadTick) as empty:
        codec.decode(None)
    assert empty.value.reason is Reason.empty
