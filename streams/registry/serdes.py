"""Which of a worker's topics are in Confluent's frames, and what reads and writes them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Literal

import structlog

from schemas.bar import Bar, BarModel, decode_bar, encode_bar
from schemas.codecs import Codec, get_codec
from schemas.errors import ConfigError, RegistryError
from schemas.health import HealthComponent
from streams.batch import Batch
from streams.registry import avro
from streams.registry.codec import FramedCodec
from streams.registry.confluent import ConfluentRegistry, Refused, Schema
from streams.registry.frames import Frames
from streams.registry.framing import frame, is_framed
from streams.settings import Settings, TickTopic

log = structlog.get_logger(__name__)

#: Feeds that are Tidegate's own JSON, which Avro is made into.
_OWN = ("tidegate", "jsonl")

Handle = Callable[[Batch], Awaitable[None]]


class TickFrames:
    """The tick topics that are framed; false where none is."""

    def __init__(self, settings: Settings) -> None:
        framed = [spec for spec in settings.ticks if spec.framing == "confluent"]
        registry = ConfluentRegistry.of(settings) if framed else None
        self._frames: Mapping[str, Frames[bytes]] = (
            {spec.topic: Frames(spec.topic, registry, partial(_ticks, spec.feed)) for spec in framed}
            if registry is not None
            else {}
        )

    def __bool__(self) -> bool:
        return bool(self._frames)

    def codec(self, spec: TickTopic) -> Codec:
        """What decodes the records of a tick topic."""
        codec, frames = get_codec(spec.feed, spec.venue), self._frames.get(spec.topic)
        return codec if frames is None else FramedCodec(codec, frames)

    def ahead(self, read: Callable[[Batch], None]) -> Callable[[Batch], None]:
        """Read a batch ahead only if nothing has to be learnt for it."""

        def read_known(batch: Batch) -> None:
            if batch.tp.topic not in self._frames or self._frames[batch.tp.topic].knows(batch):
                read(batch)

        return read_known if self else read

    def first(self, handle: Handle) -> Handle:
        """Learn the schemas of a batch before it is handled."""

        async def learn_and_handle(batch: Batch) -> None:
            if (frames := self._frames.get(batch.tp.topic)) is not None:
                await frames.learn(batch)
            await handle(batch)

        return learn_and_handle if self else handle

    def close(self) -> None:
        """Ask the registry no more."""
        for frames in self._frames.values():
            frames.close()

    def components(self) -> list[Callable[[], HealthComponent]]:
        """The health of each."""
        return [frames.health for frames in self._frames.values()]


class BarsOut:
    """Bars as they are written: JSON, or framed Avro or JSON of a registered schema."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.subject = f"{topic}-value"
        self._format = settings.bars_format
        self._register = settings.schema_registry_register
        self._registry = ConfluentRegistry.of(settings) if self._format != "json" else None
        self._encode: Callable[[Bar], bytes] = avro.bar_writer() if self._format == "avro" else encode_bar
        self._id = -1

    async def start(self) -> None:
        """Have the schema registered, or find it. Raises `ConfigError`."""
        if self._registry is None:
            return
        kind: Literal["AVRO", "JSON"] = "AVRO" if self._format == "avro" else "JSON"
        text = avro.bar_schema() if kind == "AVRO" else json.dumps(BarModel.model_json_schema())
        try:
            self._id = await self._registry.id_of(self.subject, kind, text, register=self._register)
        except Refused as exc:
            raise ConfigError(
                f"schema registry {self._registry.url} refuses subject {self.subject}: {exc}",
                hint="see schema_registry_user and schema_registry_password, and the rights of that user",
            ) from None
        except RegistryError as exc:
            raise ConfigError(
                f"schema registry {self._registry.url} does not answer: {exc}",
                hint=f"bars_format {self._format} needs it at the start; see schema_registry_url, "
                "or write bars as json",
            ) from None
        finally:
            self._registry.close()
        log.info("schema.bars", subject=self.subject, schema=self._id, format=self._format)

    @property
    def encode(self) -> Callable[[Bar], bytes]:
        """What makes the value of a bar's record, once it has started."""
        return encode_bar if self._registry is None else self._framed

    def _framed(self, bar: Bar) -> bytes:
        return frame(self._id, self._encode(bar))


class BarsIn:
    """Bars as they are read, plain or framed: one topic may hold both."""

    def __init__(self, settings: Settings, topic: str) -> None:
        registry = ConfluentRegistry.of(settings)
        self._frames = Frames(topic, registry, _bars) if registry is not None else None

    def decode(self, value: bytes) -> Bar:
        """Raises `BadRecord`."""
        if self._frames is not None and is_framed(value):
            return self._frames.open(value)
        return decode_bar(value)

    def first(self, handle: Handle) -> Handle:
        """Learn the schemas of a batch before it is handled."""
        frames = self._frames
        if frames is None:
            return handle

        async def learn_and_handle(batch: Batch) -> None:
            await frames.learn(batch)
            if not batch.void:
                await handle(batch)

        return learn_and_handle

    def close(self) -> None:
        """Ask the registry no more."""
        if self._frames is not None:
            self._frames.close()

    def components(self) -> list[Callable[[], HealthComponent]]:
        """Its health, where bars may be framed."""
        return [] if self._frames is None else [self._frames.health]


def _ticks(feed: str, schema: Schema) -> Callable[[bytes], bytes]:
    """What makes a message of the feed of a payload. Raises `RegistryError`."""
    if schema.kind == "JSON":
        return _as_it_is
    if feed not in _OWN:
        raise RegistryError(f"feed {feed} is JSON, and this schema is {schema.kind}")
    return avro.tick_reader(_avro(schema))


def _bars(schema: Schema) -> Callable[[bytes], Bar]:
    return decode_bar if schema.kind == "JSON" else avro.bar_reader(_avro(schema))


def _avro(schema: Schema) -> str:
    if schema.kind != "AVRO":
        raise RegistryError(f"it is {schema.kind}; AVRO and JSON are read")
    if schema.references:
        raise RegistryError("it refers to schemas of other subjects; write it as one")
    return schema.text


def _as_it_is(payload: bytes) -> bytes:
    return payload
