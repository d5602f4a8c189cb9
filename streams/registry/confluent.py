"""A schema registry that speaks Confluent's API, through confluent-kafka's client.

The client blocks, so it is asked in threads; it tries nothing twice here, for who asks knows how long to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from schemas.errors import ConfigError, RegistryError
from streams.extras import need
from streams.settings import Settings

T = TypeVar("T")

#: How long one answer may take.
TIMEOUT_S = 5.0

#: Refusals that say something of who asks or of the server, not of what is asked for.
_PASSING = frozenset({401, 403, 407, 408, 425, 429})

#: Refusals that are meant whatever their code: Confluent's registry gives an incompatible schema the code 409.
_ANY_CODE = _PASSING | {409}


def _is_own(status: int, code: object) -> bool:
    """Whether an answer is of the registry, such as 40403 for an id that it lacks, and not of what is before it.

    A gateway without a registry, and a path that is none, answer 404, too: that says nothing of an id.
    """
    return isinstance(code, int) and code // 100 == status


class Schema(NamedTuple):
    """What a registry has under an id."""

    kind: str
    """"AVRO", "JSON" or "PROTOBUF"."""
    text: str
    references: bool = False
    """Whether it needs other subjects to be understood."""


class Refused(RegistryError):
    """The registry answered, and the answer is no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ConfluentRegistry:
    """Schemas by id, and what is registered under a subject. Nothing is cached here.

    Every call raises `RegistryError` where the registry does not answer, and `Refused` where it says no.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        ca: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        package = need("registry", "confluent_kafka.schema_registry", "schema_registry_url")
        self._error: type[Exception] = package.SchemaRegistryError
        self._schema = package.Schema
        self.url = ""
        """Where it is, without a user and a password."""
        options: dict[str, Any] = {"url": url, "timeout": timeout_s, "max.retries": 0}
        if user:
            options["basic.auth.user.info"] = f"{user}:{password}"
        if ca:
            options["ssl.ca.location"] = ca
        try:
            parts = urlsplit(url)
            if not parts.hostname:
                raise ValueError("it names no host")
            self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
            self._client = package.SchemaRegistryClient(options)
        except (ValueError, TypeError) as exc:
            raise ConfigError(
                f"schema_registry_url {self.url or 'is none'}: {exc}", hint="it looks like http://host:8081"
            ) from None
        except OSError as exc:
            raise ConfigError(
                f"schema_registry_ca {ca}: {exc}", hint="a file of certificates, in PEM"
            ) from None

    @classmethod
    def of(cls, settings: Settings) -> ConfluentRegistry | None:
        """The one that the settings name, if they do."""
        if not settings.schema_registry_url:
            return None
        password, ca = settings.schema_registry_password, settings.schema_registry_ca
        return cls(
            settings.schema_registry_url,
            user=settings.schema_registry_user,
            password=password.get_secret_value() if password else "",
            ca=str(ca) if ca else None,
        )

    async def schema(self, schema_id: int) -> Schema | None:
        """None where the registry has none of this id."""
        try:
            found = await self._ask(lambda: self._client.get_schema(schema_id))
        except Refused as exc:
            if exc.status in _PASSING:
                raise
            return None
        return Schema(found.schema_type, found.schema_str, bool(found.references))

    async def id_of(self, subject: str, kind: Literal["AVRO", "JSON"], text: str, *, register: bool) -> int:
        """The id of a schema under a subject, registered where it is not, or else looked up.

        Raises `ConfigError` where the subject's rules refuse it, or it is not there and may not be registered.
        """
        schema = self._schema(text, kind)
        try:
            if register:
                return int(await self._ask(lambda: self._client.register_schema(subject, schema)))
            return int((await self._ask(lambda: self._client.lookup_schema(subject, schema))).schema_id)
        except Refused as exc:
            if exc.status == 409:
                raise ConfigError(
                    f"schema registry {self.url}: subject {subject} has a schema that bars are not compatible "
                    f"with: {exc}",
                    hint="give bars another topic_prefix, or change the compatibility of the subject",
                ) from None
            if exc.status == 404:
                raise ConfigError(
                    f"schema registry {self.url}: subject {subject} does not have the schema of bars",
                    hint="register it (tidegate schema bar), or set schema_registry_register to true",
                ) from None
            raise

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    async def _ask(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except self._error as exc:
            status, message = exc.http_status_code, exc.error_message  # type: ignore[attr-defined]
            said = f"{' '.join(str(message).split())} (HTTP {status})"
            meant = status in _ANY_CODE or _is_own(status, exc.error_code)  # type: ignore[attr-defined]
            raise (Refused(said, status) if meant and 400 <= status < 500 else RegistryError(said)) from None
        except Exception as exc:  # of its HTTP library, which is one or another by its version
            raise RegistryError(f"{type(exc).__name__}: {' '.join(str(exc).split())}") from None
