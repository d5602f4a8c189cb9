"""Framed ticks and bars with a registry that speaks Confluent's API, and real clients of it."""

from __future__ import annotations

import asyncio
import io
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fastavro
import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.bar import Bar, decode_bar
from schemas.contracts import SCHEMAS
from schemas.dead_letter import HEADER, decode_dead_letter
from schemas.errors import ConfigError, RegistryError
from streams.registry.avro import bar_reader, bar_schema
from streams.registry.confluent import ConfluentRegistry
from streams.registry.framing import frame, unframe
from streams.store.base import BarQuery, open_store
from support import oracle
from support.bars import schema, stored, stored_at
from support.cli import tidegate
from support.containers import HOST, free_port
from support.kafka import TestTopics, records
from support.proxy import Proxy
from support.wait import until
from support.workers import OWN_TOPICS, Group, Worker

pytestmark = pytest.mark.covers("Confluent schema registry")

NOW = time.time_ns() // 10**9 * 10**9 - 600 * 10**9
TICK_SCHEMA = {
    "type": "record",
    "name": "Tick",
    "namespace": "test",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "ts_ns", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 8}},
        {"name": "size", "type": "string"},
        {"name": "trade_id", "type": ["null", "long"], "default": None},
        {"name": "side", "type": ["null", {"type": "enum", "name": "Side", "symbols": ["buy", "sell"]}]},
    ],
}
PARSED = fastavro.parse_schema(
    {
        **TICK_SCHEMA,
        "name": "Written",
        "fields": [
            {**field, "type": "long"} if field["name"] == "ts_ns" else field
            for field in TICK_SCHEMA["fields"]
        ],
    }
)
PLAIN_TICKS = 120


@pytest.fixture
def client(schema_registry: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": schema_registry}) as client:
        yield client


class Site:
    """Topics of a test's own, and workers on them."""

    def __init__(self, kafka: str, topics: TestTopics, folder: Path, registry: str, store: str) -> None:
        for name in ("ticks.v1", *OWN_TOPICS):
            topics(name, partitions=2)
        self.kafka, self.prefix, self.folder, self.registry = kafka, topics.prefix, folder, registry
        self.ticks, self.bars = f"{topics.prefix}ticks.v1", f"{topics.prefix}bars.v1"
        self.subject = f"{self.bars}-value"
        self.store = store
        self._producer = Producer({"bootstrap.servers": kafka, "linger.ms": 1})

    def config(self, *lines: str, framing: str = "confluent") -> Path:
        file = self.folder / f"{self.prefix}toml"
        file.write_text(
            f'broker = "{self.kafka}"\ntopic_prefix = "{self.prefix}"\ngroup = "{self.prefix}g"\n'
            f'store = "{self.store}"\ncheckpoint = "200ms"\nschema_registry_url = "{self.registry}"\n'
            + "".join(f"{line}\n" for line in lines)
            + f'[[ticks]]\ntopic = "{self.ticks}"\nbars = ["1s", "1m"]\nidle = "1s"\nframing = "{framing}"\n'
        )
        return file

    def send(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self._producer.produce(self.ticks, value, key="A", partition=partition)
        assert self._producer.flush(20) == 0

    def dead(self, partition: int = 0) -> list[tuple[bytes | None, str, str]]:
        """Value, reason and detail of each dead letter."""
        found = []
        for message in records(self.kafka, f"{self.prefix}ticks.dlq.v1", partition):
            letter = decode_dead_letter(dict(message.headers() or [])[HEADER])
            found.append((message.value(), str(letter.reason), letter.detail))
        return found

    def on_bars(self) -> list[bytes]:
        """The values on the bars topic."""
        return [m.value() or b"" for p in (0, 1) for m in records(self.kafka, self.bars, p)]


@pytest.fixture
def site(
    kafka: str, topics: TestTopics, tmp_path: Path, schema_registry: str, postgres: str
) -> Iterator[Site]:
    with schema(postgres) as store:
        yield Site(kafka, topics, tmp_path, schema_registry, store)


def ticks(begin: int = 0, count: int = PLAIN_TICKS) -> list[dict[str, Any]]:
    """Ticks of one instrument, half a second apart, with prices that no float holds."""
    return [
        {
            "symbol": "A",
            "ts_ns": NOW + n * 5 * 10**8,
            "price": f"{61837 + n % 7}.00000001",
            "size": f"0.{n % 9 + 1}",
            "trade_id": n,
            "side": "buy" if n % 2 else "sell",
        }
        for n in range(begin, begin + count)
    ]


def in_avro(tick: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    values = {**tick, "ts_ns": tick["ts_ns"] // 1000, "price": Decimal(tick["price"])}
    fastavro.schemaless_writer(out, PARSED, values)
    return out.getvalue()


def in_json(tick: dict[str, Any]) -> bytes:
    return json.dumps(tick).encode()


def bars_of(sent: list[dict[str, Any]]) -> dict[oracle.Key, oracle.Content]:
    return oracle.bars_of([oracle.Tick("A", t["ts_ns"], t["price"], t["size"]) for t in sent], ["1s", "1m"])


def register(client: SchemaRegistryClient, subject: str, content: object, kind: str = "AVRO") -> int:
    return int(client.register_schema(subject, Schema(json.dumps(content), kind)))


def rows(store: str) -> dict[oracle.Key, Bar]:
    """All bars of a store, but for the topic that they came from."""

    async def read() -> dict[oracle.Key, Bar]:
        opened = open_store(store, read_only=True)
        await opened.open()
        try:
            return {
                (bar.instrument, bar.type, bar.start_ns): msgspec.structs.replace(bar, source_topic="")
                async for some in opened.read(BarQuery())
                for bar in some
            }
        finally:
            await opened.close()

    return asyncio.run(read())


def wait_stored(store: str, sent: list[dict[str, Any]], worker: Worker) -> None:
    """Wait until PostgreSQL holds the bars of these ticks."""
    expected = bars_of(sent)

    def equal() -> bool:
        assert worker.process.poll() is None, worker.log.read_text()[-3000:]
        return stored(store) == expected

    until(equal, 60, "the bars of all ticks are stored", every_s=0.2)


@pytest.mark.end_to_end
def test_avro_ticks_give_the_bars_of_plain_json_and_avro_bars_are_stored_as_plain_ones_are(
    kafka: str, postgres: str, site: Site, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    sent = ticks()
    schema_id = register(client, f"{site.ticks}-value", TICK_SCHEMA)
    with Worker(tmp_path, "framed", site.config('bars_format = "avro"')) as worker:
        site.send(*(frame(schema_id, in_avro(tick)) for tick in sent))
        wait_stored(site.store, sent, worker)
        assert worker.stop() == 0
    framed, values = rows(site.store), site.on_bars()

    with schema(postgres) as store:
        plain = Site(kafka, TestTopics(kafka), tmp_path, site.registry, store)
        with Worker(tmp_path, "plain", plain.config(framing="none")) as worker:
            plain.send(*map(in_json, sent))
            wait_stored(plain.store, sent, worker)
            assert worker.stop() == 0
        assert rows(plain.store) == framed

    registered = client.get_latest_version(site.subject)
    assert json.loads(registered.schema.schema_str) == json.loads(bar_schema())
    assert {unframe(value).id for value in values} == {registered.schema_id}
    deserialize = AvroDeserializer(client)  # as the programs of others read them
    read = [deserialize(value, SerializationContext(site.bars, MessageField.VALUE)) for value in values]
    assert {(bar["type"], bar["start_ns"]) for bar in read} == {key[1:] for key in framed}
    assert bar_reader(registered.schema.schema_str)(unframe(values[0]).payload).venue == ""


@pytest.mark.end_to_end
def test_ticks_of_a_json_schema_give_bars_of_one_in_duckdb(
    kafka: str, site: Site, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    sent = ticks()
    site.store = f"duckdb:{tmp_path / 'bars.duckdb'}"
    serialize = JSONSerializer(
        json.dumps(SCHEMAS["tick"].model_json_schema()), client
    )  # as others write them
    where = SerializationContext(site.ticks, MessageField.VALUE)
    expected = bars_of(sent)
    with Worker(tmp_path, "worker", site.config('bars_format = "jsonschema"')) as worker:
        site.send(*(serialize(tick, where) or b"" for tick in sent))
        group = Group(kafka, f"{site.prefix}g-store")
        until(
            lambda: sum(max(0, at) for at in group.committed(site.bars, 2)) >= len(expected),
            60,
            "the store has committed all bars",
        )
        assert worker.stop() == 0
    assert stored_at(site.store) == expected
    values = site.on_bars()
    assert {unframe(v).id for v in values} == {client.get_latest_version(site.subject).schema_id}
    assert {decode_bar(unframe(v).payload).type for v in values} == {"1s", "1m"}


@pytest.mark.end_to_end
def test_what_cannot_be_opened_is_dead_lettered_alone_with_its_bytes_and_a_reason(
    site: Site, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    sent = ticks()
    schema_id = register(client, f"{site.ticks}-value", TICK_SCHEMA)
    inexact = {**TICK_SCHEMA, "fields": [*TICK_SCHEMA["fields"][:2], *(
        {"name": name, "type": "double"} for name in ("price", "size"))]}  # fmt: skip
    float_id = register(client, f"{site.prefix}floats-value", inexact)
    good = in_avro(sent[0])
    bad = {
        frame(2**31 - 1, good): "no schema of this id",
        frame(schema_id, good[:-3]): "not Avro of its schema",
        frame(schema_id, b"\xff" * 40): "not Avro of its schema",
        frame(float_id, b"whatever"): "price is a double, which is not exact",
        b"\0\0\0": "hold no id",
        in_json(sent[0]): "not framed",
    }
    framed = [frame(schema_id, in_avro(tick)) for tick in sent]
    with Worker(tmp_path, "worker", site.config()) as worker:
        site.send(*framed[:60], *bad, *framed[60:])
        wait_stored(site.store, sent, worker)
        letters = until(lambda: len(found := site.dead()) >= len(bad) and found, 20, "dead letters")
        assert worker.stop() == 0
    assert [value for value, _, _ in letters] == list(bad)
    for (_, reason, detail), why in zip(letters, bad.values(), strict=True):
        assert reason == "malformed"
        assert why in detail


@pytest.mark.end_to_end
def test_a_registry_that_is_away_in_mid_stream_is_waited_for_and_nothing_is_lost(
    site: Site, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    sent = ticks(count=240)
    schema_id = register(client, f"{site.ticks}-value", TICK_SCHEMA)
    with Proxy(port=urlsplit(site.registry).port or 0) as proxy:
        site.registry = site.registry.replace(str(urlsplit(site.registry).port), str(proxy.port))
        http = f"{HOST}:{free_port()}"
        config = site.config(f'http = "{http}"', 'drain_timeout = "2s"')
        with Worker(tmp_path, "worker", config) as worker:
            site.send(*(frame(schema_id, in_avro(tick)) for tick in sent[:120]))
            wait_stored(site.store, sent[:120], worker)
            proxy.cut()
            # What is known needs nobody ...
            site.send(*(frame(schema_id, in_avro(tick)) for tick in sent[120:160]))
            wait_stored(site.store, sent[:160], worker)
            # ... and what is not, waits, with all that came after it.
            doc = {**TICK_SCHEMA, "doc": "another one"}
            other_id = register(client, f"{site.ticks}-value", doc)
            site.send(*(frame(other_id, in_avro(tick)) for tick in sent[160:200]))
            site.send(*(frame(schema_id, in_avro(tick)) for tick in sent[200:]))
            until(lambda: worker.events("schema_registry.away"), 20, "it says that it waits")
            part = until(lambda: component(http, f"schema_registry:{site.ticks}"), 10, "health says so")
            assert part["state"] == "degraded"
            assert len(worker.events("schema_registry.away")) == 1
            assert worker.stop() == 0
        # Who comes after it waits, too, and knows nothing yet.
        with Worker(tmp_path, "next", config) as worker:
            until(lambda: worker.events("schema_registry.away"), 30, "it says that it waits")
            assert site.dead() == []
            proxy.resume()
            wait_stored(site.store, sent, worker)
            assert len(worker.events("schema_registry.back")) == 1
            assert worker.stop() == 0
    assert site.dead() == []


def component(http: str, name: str) -> dict[str, Any] | None:
    """A part of a worker that is not well, as its endpoint tells."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=5) as answer:
            status = json.load(answer)
    except urllib.error.HTTPError as exc:
        status = json.load(exc)
    parts = [p for p in status["components"] if p["name"] == name and p["state"] != "healthy"]
    return parts[0] if parts else None


@pytest.mark.end_to_end
def test_bars_that_the_subject_is_not_compatible_with_are_refused_before_anything_is_consumed(
    kafka: str, site: Site, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    own = json.loads(bar_schema())
    other = {**own, "fields": [{"name": "open", "type": "double"}, *own["fields"][:3]]}
    register(client, site.subject, other)
    client.set_compatibility(site.subject, "BACKWARD")
    site.send(*map(in_json, ticks()))
    done = tidegate("worker", "--config", site.config('bars_format = "avro"', framing="none"), cwd=tmp_path)
    assert done.returncode == 1
    error = done.stderr.decode().splitlines()
    assert f"subject {site.subject} has a schema that bars are not compatible with" in error[-2]
    assert error[-1].startswith("  hint: ")
    assert Group(kafka, f"{site.prefix}g-bars").committed(site.ticks, 2) == [-1001, -1001]
    assert site.on_bars() == []


def test_a_registry_that_is_not_there_or_lacks_the_schema_is_one_line_with_a_hint(
    site: Site, tmp_path: Path
) -> None:
    def started(*lines: str) -> list[str]:
        config = site.config('bars_format = "avro"', *lines, framing="none")
        done = tidegate("worker", "--config", config, cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr.decode()
        return done.stderr.decode().splitlines()[-2:]

    error, hint = started("schema_registry_register = false")
    assert f"subject {site.subject} does not have the schema of bars" in error
    assert "schema_registry_register" in hint
    site.registry = f"http://{HOST}:{free_port()}"
    error, hint = started()
    assert f"schema registry {site.registry} does not answer" in error
    assert "schema_registry_url" in hint


async def test_the_schema_of_bars_is_registered_once_and_found_again(
    schema_registry: str, client: SchemaRegistryClient
) -> None:
    registry = ConfluentRegistry(schema_registry)
    subject = f"t{uuid.uuid4().hex[:10]}-value"
    with pytest.raises(ConfigError, match="does not have the schema of bars"):
        await registry.id_of(subject, "AVRO", bar_schema(), register=False)
    made = await registry.id_of(subject, "AVRO", bar_schema(), register=True)
    assert await registry.id_of(subject, "AVRO", bar_schema(), register=True) == made
    assert await registry.id_of(subject, "AVRO", bar_schema(), register=False) == made
    found = await registry.schema(made)
    assert found is not None
    assert (found.kind, json.loads(found.text)) == ("AVRO", json.loads(bar_schema()))
    assert await registry.schema(2**31 - 1) is None
    assert client.get_versions(subject) == [1]
    registry.close()


@pytest.mark.parametrize("path", ["", "/apis/ccompat/v0"])
async def test_a_404_that_is_not_the_registrys_own_is_no_answer_about_an_id_or_a_subject(
    schema_registry: str, path: str
) -> None:
    # As of a gateway without a registry behind it: by that no record may be refused.
    registry = ConfluentRegistry(schema_registry.replace(urlsplit(schema_registry).path, path))
    with pytest.raises(RegistryError, match="HTTP 404"):
        await registry.schema(1)
    with pytest.raises(RegistryError, match="HTTP 404"):
        await registry.id_of("bars-value", "AVRO", bar_schema(), register=False)
    registry.close()


@pytest.mark.parametrize("schema_id", [0, 2**31 - 1])
async def test_any_id_that_the_registry_lacks_is_absent_and_waits_for_nothing(
    schema_registry: str, schema_id: int
) -> None:
    registry = ConfluentRegistry(schema_registry)
    assert await registry.schema(schema_id) is None
    registry.close()


@pytest.mark.parametrize("url", ["registry", "ftp://x", "http://"])
def test_a_url_that_is_none_is_a_clear_error(url: str, schema_registry: str) -> None:
    with pytest.raises(ConfigError, match="schema_registry_url"):
        ConfluentRegistry(url)


async def test_a_password_in_the_url_is_not_told() -> None:
    registry = ConfluentRegistry(f"http://me:secret@{HOST}:{free_port()}")
    assert "secret" not in registry.url
    with pytest.raises(RegistryError) as caught:
        await registry.schema(1)
    assert "secret" not in str(caught.value)
    registry.close()
