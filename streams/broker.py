"""One description of the broker for both client libraries, and the questions a worker asks at start."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import faust
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata
from faust.types.auth import CredentialsT

from schemas.errors import BrokerError
from streams.settings import Settings


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
        for key, path in (
            ("ssl.ca.location", settings.ssl_cafile),
            ("ssl.certificate.location", settings.ssl_certfile),
            ("ssl.key.location", settings.ssl_keyfile),
        ):
            if path is not None:
                config[key] = str(path)
    return config


def faust_credentials(settings: Settings) -> CredentialsT | None:
    """The same as Faust (aiokafka) takes it; None for plain text without a login."""
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


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(settings.ssl_cafile) if settings.ssl_cafile else None)
    if settings.ssl_certfile is not None:
        context.load_cert_chain(
            str(settings.ssl_certfile), str(settings.ssl_keyfile or settings.ssl_certfile)
        )
    return context


async def cluster(settings: Settings, timeout_s: float = 5.0) -> ClusterMetadata:
    """Metadata of the cluster; `BrokerError` with the likely cause if it does not answer in time."""
    return await asyncio.to_thread(cluster_now, settings, timeout_s)


def cluster_now(settings: Settings, timeout_s: float = 5.0) -> ClusterMetadata:
    """`cluster`, for callers without an event loop."""
    complaints: list[str] = []
    admin = AdminClient(
        {**confluent_config(settings), "error_cb": lambda error: complaints.append(error.str())}
    )
    try:
        return admin.list_topics(timeout=timeout_s)
    except KafkaException as exc:
        admin.poll(0)
        raise BrokerError(
            f"broker {settings.broker} did not answer: {complaints[-1] if complaints else exc.args[0].str()}",
            hint=_hint(settings, complaints),
        ) from None


def _hint(settings: Settings, complaints: Iterable[str]) -> str:
    said = " ".join(complaints).lower()
    if "authentication" in said or "sasl" in said:
        return "check sasl_mechanism, sasl_username and TIDEGATE_SASL_PASSWORD"
    if "ssl" in said or "certificate" in said:
        return "check security_protocol and ssl_cafile; is this the broker's TLS port?"
    if "resolve" in said:
        return "the host name cannot be resolved: check --broker"
    if settings.security_protocol == "PLAINTEXT" and "disconnected" in said:
        return "the broker hung up: is TLS or a login missing (security_protocol)?"
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
