"""One description of the broker for all client libraries, and the questions a worker asks at start."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from schemas.errors import BrokerError, ConfigError
from streams.settings import Settings

if TYPE_CHECKING:
    from faust.types.auth import CredentialsT


def confluent_config(settings: Settings) -> dict[str, Any]:
    """The settings as librdkafka takes them (producer, admin)."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.broker,
        "security.protocol": settings.security_protocol,
        # What librdkafka would print by itself is raised or logged by us.
        "log_level": 0,
        "client.id": "tidegate",
    }
    if settings.security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.sasl_mechanism
        config["sasl.username"] = settings.sasl_username
        if settings.sasl_password is not None:
            config["sasl.password"] = settings.sasl_password.get_secret_value()
    if settings.security_protocol.endswith("SSL"):
        _ssl_context(settings)  # says better than librdkafka which file is wrong
        for key, path in (
            ("ssl.ca.location", settings.ssl_cafile),
            ("ssl.certificate.location", settings.ssl_certfile),
            ("ssl.key.location", settings.ssl_keyfile or settings.ssl_certfile),
        ):
            if path is not None:
                config[key] = str(path)
    return config


def faust_credentials(settings: Settings) -> CredentialsT | None:
    """The same as Faust takes it; None for plain text without a login."""
    import faust  # takes a second, which commands and subscribers need not wait

    context = _ssl_context(settings) if settings.security_protocol.endswith("SSL") else None
    if settings.security_protocol.startswith("SASL"):
        password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=password,
            ssl_context=context,
            mechanism=settings.sasl_mechanism,
        )
    return faust.SSLCredentials(context) if context is not None else None


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """The same as aiokafka's own clients take it."""
    config: dict[str, Any] = {
        "bootstrap_servers": settings.broker,
        "security_protocol": settings.security_protocol,
        "client_id": "tidegate",
    }
    if settings.security_protocol.endswith("SSL"):
        config["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        config["sasl_mechanism"] = settings.sasl_mechanism
        config["sasl_plain_username"] = settings.sasl_username
        if settings.sasl_password is not None:
            config["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return config


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    """Verifies the broker's certificate and host name; `ConfigError` names the file that cannot be used."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        if (path := getattr(settings, name)) is not None:
            try:
                path.read_bytes()
            except OSError as exc:
                raise ConfigError(f"{name} {path}: {exc.strerror}", hint="it must be a PEM file") from None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except ssl.SSLError as exc:
        raise ConfigError(
            f"ssl_cafile {settings.ssl_cafile}: {_said(exc)}",
            hint="it must be a PEM file with the certificates of the authorities to trust",
        ) from None
    if settings.ssl_certfile is not None:
        keyfile = settings.ssl_keyfile or settings.ssl_certfile
        try:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(settings.ssl_certfile, keyfile, password="")
        except ssl.SSLError as exc:
            raise ConfigError(
                f"ssl_certfile {settings.ssl_certfile} and the key in {keyfile}: {_said(exc)}",
                hint="they must be PEM files, and the key that of the certificate, without a password",
            ) from None
    return context


def _said(exc: ssl.SSLError) -> str:
    return (exc.reason or "unusable").replace("_", " ").lower()


#: Where every server refuses connections, this much is enough to know: it may be in the midst of a restart.
REFUSED_S = 1.0


async def cluster(settings: Settings, timeout_s: float = 5.0) -> ClusterMetadata:
    """Metadata of the cluster; `BrokerError` with the likely cause if it does not answer in time."""
    return await asyncio.to_thread(cluster_now, settings, timeout_s)


def cluster_now(settings: Settings, timeout_s: float = 5.0) -> ClusterMetadata:
    """`cluster`, for callers without an event loop."""
    errors: list[KafkaError] = []
    admin = AdminClient({**confluent_config(settings), "error_cb": errors.append})
    refused_s = min(REFUSED_S, timeout_s)
    for wait_s in (refused_s, timeout_s - refused_s):
        try:
            return admin.list_topics(timeout=wait_s)
        except KafkaException as exc:
            admin.poll(0)
            last = exc.args[0]
        if _nobody_listens(errors):
            break
    errors = errors or [last]
    # Not within the handler, which would keep the client: with TLS its threads may crash an exiting process.
    del admin
    cause, hint = _explained(settings, errors)
    raise BrokerError(f"broker {settings.broker} did not answer: {cause}", hint=hint)


def _nobody_listens(errors: list[KafkaError]) -> bool:
    """Whether no server was reached, and each one refused."""
    down = [error for error in errors if error.code() == KafkaError._ALL_BROKERS_DOWN]
    others = [error for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
    return bool(down) and bool(others) and all("Connection refused" in error.str() for error in others)


#: Errors that say more than others do, the first one most.
_TELLING = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE)
#: What librdkafka adds for those who set it up and watch its states.
_ASIDE = re.compile(r", verify that ssl\.ca\.location.*| \(after \d+ms in state \w+\).*", re.DOTALL)


def _explained(settings: Settings, errors: list[KafkaError]) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    heard = [error for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
    if not heard:  # a broker that hangs up is no error to librdkafka
        return (
            "it closed the connection",
            f"does this port speak {settings.security_protocol}? check security_protocol and --broker",
        )
    telling = [error for code in _TELLING for error in heard if error.code() == code]
    error = [*telling, heard[-1]][0]
    return _ASIDE.sub("", error.str()), _hint(error.code(), error.str())


def _hint(code: int, said: str) -> str:
    if code == KafkaError._AUTHENTICATION:
        return "check sasl_mechanism, sasl_username and TIDEGATE_SASL_PASSWORD"
    if code == KafkaError._RESOLVE:
        return "the host name cannot be resolved: check --broker"
    if "certificate verify failed" in said:
        return (
            "is the broker's certificate made out to this host name, "
            "and signed by an authority in ssl_cafile?"
        )
    if "alert" in said:
        return "the broker refuses this client's certificate, or wants one: check ssl_certfile"
    if code == KafkaError._SSL or "SSL " in said:  # a handshake that failed, or was hung up on
        return "is this the broker's TLS port? check security_protocol and --broker"
    return "is it running, and is --broker (TIDEGATE_BROKER) right?"


async def check_topics(settings: Settings, wanted: Iterable[str], same_count: Iterable[str]) -> int:
    """Raise `BrokerError` unless all `wanted` topics exist and `same_count` ones have equal partition counts.

    Gives that count.
    """
    topics = (await cluster(settings)).topics
    missing = sorted(name for name in wanted if name not in topics)
    if missing:
        raise BrokerError(
            f"broker {settings.broker} lacks {'topics' if missing[1:] else 'topic'} {', '.join(missing)}",
            hint="`tidegate topics plan` shows what is missing, `tidegate topics apply` creates it",
        )
    counts = {name: len(topics[name].partitions) for name in same_count}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise BrokerError(
            f"these topics must have equal partition counts: {listed}",
            hint="partition p must mean the same instruments in each: make the odd one anew",
        )
    return next(iter(counts.values()))
