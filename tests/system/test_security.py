"""TLS and logins against a broker that asks for them: one description serves both client libraries."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import aiokafka
import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from pydantic import SecretStr

from schemas.errors import BrokerError
from schemas.feedback import Feedback, Level, encode_feedback
from streams.broker import cluster, faust_credentials
from streams.flow.subscribe import feedback
from streams.settings import Settings
from support import oracle, tiers
from support.bars import stored_at
from support.certificates import Authority, Pair
from support.cli import assert_one_clear_line, tidegate
from support.kafka import Kafka, TestTopics, records, running_kafka
from support.wait import until
from support.workers import Group, Worker, wait_assigned

pytestmark = pytest.mark.kafka

USER, PASSWORD = "market-data", "s3cret-of-the-tide"
WRONG = "a-Wr0ng-passw0rd"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
T0_NS = 1_723_161_255 * 10**9

#: Longer than a command may take to say that it cannot connect.
TOLD_S = 20.0


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker that asks for TLS and a login, and the settings with which clients are let in."""

    kafka: Kafka
    authority: Authority
    client: Pair
    folder: Path

    def tls_login(self, **changes: str) -> dict[str, str]:
        """SASL_SSL with SCRAM."""
        return {
            "TIDEGATE_BROKER": self.kafka.addresses["SECURE"],
            "TIDEGATE_SECURITY_PROTOCOL": "SASL_SSL",
            "TIDEGATE_SASL_MECHANISM": "SCRAM-SHA-512",
            "TIDEGATE_SASL_USERNAME": USER,
            "TIDEGATE_SASL_PASSWORD": PASSWORD,
            "TIDEGATE_SSL_CAFILE": str(self.authority.certificate),
            **changes,
        }

    def login(self, **changes: str) -> dict[str, str]:
        """SASL_PLAINTEXT with PLAIN, which is the default mechanism."""
        return {
            "TIDEGATE_BROKER": self.kafka.addresses["LOGIN"],
            "TIDEGATE_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "TIDEGATE_SASL_USERNAME": USER,
            "TIDEGATE_SASL_PASSWORD": PASSWORD,
            **changes,
        }

    def client_certificate(self, **changes: str) -> dict[str, str]:
        """SSL where the client shows a certificate too."""
        return {
            "TIDEGATE_BROKER": self.kafka.addresses["MUTUAL"],
            "TIDEGATE_SECURITY_PROTOCOL": "SSL",
            "TIDEGATE_SSL_CAFILE": str(self.authority.certificate),
            "TIDEGATE_SSL_CERTFILE": str(self.client.certificate),
            "TIDEGATE_SSL_KEYFILE": str(self.client.key),
            **changes,
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker of this module's own, with one listener for each kind of client."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    server = authority.server()
    listeners = {"SECURE": "SASL_SSL", "LOGIN": "SASL_PLAINTEXT", "MUTUAL": "SSL"}
    settings = {
        "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN,SCRAM-SHA-512",
        "KAFKA_LISTENER_NAME_SECURE_SASL_ENABLED_MECHANISMS": "SCRAM-SHA-512",
        "KAFKA_LISTENER_NAME_SECURE_SCRAM___SHA___512_SASL_JAAS_CONFIG": SCRAM,
        "KAFKA_LISTENER_NAME_LOGIN_SASL_ENABLED_MECHANISMS": "PLAIN",
        "KAFKA_LISTENER_NAME_LOGIN_PLAIN_SASL_JAAS_CONFIG": PLAIN,
        "KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH": "required",
        "KAFKA_SSL_KEYSTORE_TYPE": "PEM",
        "KAFKA_SSL_KEYSTORE_CERTIFICATE_CHAIN": _inline(server.certificate),
        "KAFKA_SSL_KEYSTORE_KEY": _inline(server.key),
        "KAFKA_SSL_TRUSTSTORE_TYPE": "PEM",
        "KAFKA_SSL_TRUSTSTORE_CERTIFICATES": _inline(authority.certificate),
    }
    with tiers.KAFKA.started(lambda: running_kafka(listeners, **settings)) as kafka:
        _add_user(kafka.address)
        yield Secured(kafka, authority, authority.client("client"), folder)


def _inline(pem: Path) -> str:
    """On one line, as a properties file takes it."""
    return pem.read_text().replace("\n", "\\n")


def _add_user(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(USER, scram, PASSWORD.encode())
    for done in admin.alter_user_scram_credentials([change]).values():
        done.result(30)


KINDS = {
    "SASL_SSL with SCRAM": Secured.tls_login,
    "SASL_PLAINTEXT with PLAIN": Secured.login,
    "SSL with a client certificate": Secured.client_certificate,
}


@pytest.mark.parametrize("kind", KINDS)
def test_topics_are_made_ticks_published_and_bars_stored(secured: Secured, kind: str, tmp_path: Path) -> None:
    variables = KINDS[kind](secured)
    prefix = f"{kind.split()[0].lower()}."
    topic, store = f"{prefix}ticks.v1", f"duckdb:{tmp_path / 'bars.duckdb'}"
    config = tmp_path / "tidegate.toml"
    config.write_text(
        f'topic_prefix = "{prefix}"\ngroup = "{prefix}tidegate"\nstore = "{store}"\n'
        f'[[ticks]]\ntopic = "{topic}"\nbars = ["1s"]\nidle = "1s"\n'
    )
    ticks = [oracle.Tick("TIDE", T0_NS + i * 10**8, f"{100 + i % 7}.5", "0.1") for i in range(500)]
    (tmp_path / "ticks.jsonl").write_text("".join(_line(i, tick) for i, tick in enumerate(ticks)))

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        done = tidegate(*arguments, "--json", cwd=tmp_path, **variables)
        assert done.returncode == 0, done.stderr.decode()
        assert PASSWORD.encode() not in done.stdout + done.stderr
        return done

    run("topics", "apply")
    with Worker(tmp_path, "worker", config, "--log-level", "DEBUG", **variables) as worker:
        bars = Group(secured.kafka.address, f"{prefix}tidegate-bars")
        wait_assigned(bars, 1, topic, [worker])
        replayed = json.loads(run("replay", "ticks.jsonl", "--topic", topic).stdout)
        fed = json.loads(run("feed", "--topic", topic, "--seconds", "1", "--rate", "200").stdout)
        total = replayed["published"] + fed["published"]
        until(lambda: sum(_committed(bars, topic)) == total, 30, "all ticks are committed")
        expected = oracle.bars_of(ticks, ["1s"])
        store_group = Group(secured.kafka.address, f"{prefix}tidegate-store")

        def names() -> list[str]:
            committed = _committed(store_group, f"{prefix}bars.v1")
            return [
                bar.key().decode()
                for partition, offset in enumerate(committed)
                for bar in records(secured.kafka.address, f"{prefix}bars.v1", partition)
                if bar.offset() < offset
            ]

        until(
            lambda: len({n for n in names() if n.startswith("TIDE|")}) == len(expected),
            30,
            "the file is stored",
        )
        until(lambda: any(n.startswith("SIM:") for n in names()), 30, "some of the feed is stored")
        assert worker.stop() == 0

    assert replayed["published"] == len(ticks)
    assert fed["published"] > 0
    assert PASSWORD not in worker.log.read_text()
    stored = stored_at(store)
    assert {key: bar for key, bar in stored.items() if key[0] == "TIDE"} == expected
    assert any(key[0].startswith("SIM:") for key in stored)


def _line(number: int, tick: oracle.Tick) -> str:
    fields = {"symbol": "TIDE", "ts_ns": tick.ts_ns, "price": tick.price, "size": tick.size}
    return json.dumps({**fields, "trade_id": number}) + "\n"


def _committed(group: Group, topic: str) -> list[int]:
    return [max(0, offset) for offset in group.committed(topic)]


@dataclass(frozen=True, slots=True)
class Mistake:
    """Settings that cannot work, and words of the line and of the hint that say so."""

    variables: Callable[[Secured], dict[str, str]]
    words: tuple[str, ...]


def _port(address: str) -> str:
    return address.rpartition(":")[2]


MISTAKES = {
    "wrong password over TLS": Mistake(
        lambda s: s.tls_login(TIDEGATE_SASL_PASSWORD=WRONG),
        ("Authentication failed", "TIDEGATE_SASL_PASSWORD"),
    ),
    "wrong password in plain text": Mistake(
        lambda s: s.login(TIDEGATE_SASL_PASSWORD=WRONG),
        ("Invalid username or password", "TIDEGATE_SASL_PASSWORD"),
    ),
    "wrong mechanism": Mistake(
        lambda s: s.tls_login(TIDEGATE_SASL_MECHANISM="PLAIN"),
        ("supported mechanisms: SCRAM-SHA-512", "check sasl_mechanism"),
    ),
    "CA file missing": Mistake(
        lambda s: s.tls_login(TIDEGATE_SSL_CAFILE="no-such-ca.pem"),
        ("ssl_cafile no-such-ca.pem: No such file or directory", "PEM"),
    ),
    "CA file broken": Mistake(
        lambda s: s.tls_login(TIDEGATE_SSL_CAFILE=str(s.client.key)),
        ("ssl_cafile", "client.key: no certificate", "PEM"),
    ),
    "CA that signed nothing here": Mistake(
        lambda s: s.tls_login(TIDEGATE_SSL_CAFILE=str(Authority(s.folder / "other").certificate)),
        ("certificate verify failed", "signed by an authority in ssl_cafile"),
    ),
    "host name that is not in the certificate": Mistake(
        lambda s: s.tls_login(TIDEGATE_BROKER=f"localhost:{_port(s.kafka.addresses['SECURE'])}"),
        ("certificate verify failed", "made out to this host name"),
    ),
    "no client certificate": Mistake(
        lambda s: {k: v for k, v in s.client_certificate().items() if "CERTFILE" not in k and "KEY" not in k},
        ("certificate", "check ssl_certfile"),
    ),
    "key of another certificate": Mistake(
        lambda s: s.client_certificate(TIDEGATE_SSL_KEYFILE=str(s.folder / "server.key")),
        ("server.key: key values mismatch", "the key that of the certificate"),
    ),
    "plain text to the TLS port": Mistake(
        lambda s: {"TIDEGATE_BROKER": s.kafka.addresses["SECURE"]},
        ("it closed the connection", "does this port speak PLAINTEXT? check security_protocol"),
    ),
    "no login": Mistake(
        lambda s: {"TIDEGATE_BROKER": s.kafka.addresses["LOGIN"]},
        ("it closed the connection", "does this port speak PLAINTEXT? check security_protocol"),
    ),
    "TLS to a plain text port": Mistake(
        lambda s: s.tls_login(TIDEGATE_BROKER=s.kafka.address),
        # Which one comes depends on who is faster to give up.
        ("SSL ", "is this the broker's TLS port?"),
    ),
    "unknown host": Mistake(
        lambda s: s.tls_login(TIDEGATE_BROKER="no-such-host.invalid:9092"),
        ("no-such-host.invalid", "cannot be resolved: check --broker"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_a_hint_and_without_the_password(
    secured: Secured, name: str, tmp_path: Path
) -> None:
    mistake = MISTAKES[name]
    variables = mistake.variables(secured)

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return tidegate(*arguments, cwd=tmp_path, timeout_s=TOLD_S, **variables)

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(run, "topics", "plan"), pool.submit(run, "worker")]

    for answer in answers:
        done = answer.result()
        assert_one_clear_line(done, *mistake.words)
        assert b"  hint: " in done.stderr
        for password in (PASSWORD, WRONG):
            assert password.encode() not in done.stdout + done.stderr


async def test_both_clients_verify_the_host_name(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in secured.tls_login().items():
        monkeypatch.setenv(name, value)
    good = Settings()
    other_name = Settings(broker=f"localhost:{_port(good.broker)}")

    async def aiokafka_connects(settings: Settings) -> None:
        auth = credentials_to_aiokafka_auth(faust_credentials(settings))
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=settings.broker, **auth)
        try:
            await producer.start()
        finally:
            await producer.stop()

    await aiokafka_connects(good)
    assert (await cluster(good)).brokers
    with pytest.raises(KafkaConnectionError):
        await aiokafka_connects(other_name)
    with pytest.raises(BrokerError, match="certificate verify failed"):
        await cluster(other_name)


@pytest.mark.parametrize("kind", KINDS)
async def test_programs_that_follow_feedback_log_in_as_workers_do(
    secured: Secured, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = TestTopics(secured.kafka.address)
    topic = topics("feedback.v1", partitions=1)
    for name, value in KINDS[kind](secured, TIDEGATE_TOPIC_PREFIX=topics.prefix).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    said = Feedback(
        coordinator_id="s", queue_size=1, capacity=1, level=Level.ok, ts=1.0, partition=0, epoch=1
    )
    producer = Producer({"bootstrap.servers": secured.kafka.address})
    producer.produce(topic, encode_feedback(said))
    assert producer.flush(10) == 0

    async with (
        asyncio.timeout(TOLD_S),
        feedback(settings, group=topics.prefix, from_beginning=True) as events,
    ):
        assert await anext(events) == said
    if settings.sasl_password is not None:
        wrong = settings.model_copy(update={"sasl_password": SecretStr(WRONG)})
        with pytest.raises(BrokerError, match=r"Authentication failed|Invalid username") as refused:
            await anext(feedback(wrong))
        assert "TIDEGATE_SASL_PASSWORD" in refused.value.hint
        assert WRONG not in f"{refused.value}{refused.value.hint}"
