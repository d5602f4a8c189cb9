"""What is written after `store = "market-data-store`: which database, and how bars go into its tables."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl, urlencode

from schemas.errors import ConfigError

SCHEME = "market-data-store"
PROVIDER = "tidegate"
PIPELINE = "tidegate"
_OWN = ("tenant", "provider", "pipeline", "volume_unit")


@dataclass(frozen=True, slots=True)
class EcosystemUrl:
    """A database of market-data-store, and Tidegate's own parameters of its URL."""

    dsn: str
    """As asyncpg takes it, without Tidegate's own parameters."""
    tenant: str = ""
    """The tenant's UUID; empty where the table is bars_ohlcv, which knows no tenants."""
    provider: str = PROVIDER
    """The provider, or vendor, of bars without a venue."""
    pipeline: str = PIPELINE
    """What idempotency keys name as the pipeline."""
    volume_unit: Decimal = Decimal(1)
    """What one of the tenants' whole-numbered volume stands for."""


def is_ecosystem(url: str) -> bool:
    """Whether a store's URL is one of market-data-store."""
    return re.match(rf"{SCHEME}(\+|\?|$)", url) is not None


def parse_ecosystem(url: str) -> EcosystemUrl:
    """Read `market-data-store+postgresql://...`, or `market-data-store`, which takes DATABASE_URL.

    Parameters of the query, in both: `tenant`, `provider`, `pipeline`, `volume_unit`; others go to the database.
    Raises ConfigError.
    """
    base, _, query = url.removeprefix(SCHEME).removeprefix("+").partition("?")
    if not base:
        base, _, more = os.environ.get("DATABASE_URL", "").partition("?")
        query = "&".join(filter(None, (more, query)))
        if not base:
            raise ConfigError(
                f"{SCHEME}: neither the store nor DATABASE_URL names a database",
                hint=f"write {SCHEME}+postgresql://USER@HOST/DATABASE, or set DATABASE_URL",
            )
    # As SQLAlchemy writes it, which market-data-store's own commands use.
    base = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", base)
    if not base.startswith("postgresql://"):
        raise ConfigError(
            f"{SCHEME} keeps bars in PostgreSQL, not in {base.partition(':')[0]!r}",
            hint=f"write {SCHEME}+postgresql://USER@HOST/DATABASE",
        )
    given = parse_qsl(query, keep_blank_values=True)
    own = {name: value for name, value in given if name in _OWN}
    others = urlencode([(name, value) for name, value in given if name not in _OWN])
    return EcosystemUrl(
        dsn=f"{base}?{others}" if others else base,
        tenant=_tenant(own["tenant"]) if "tenant" in own else "",
        provider=own.get("provider") or PROVIDER,
        pipeline=own.get("pipeline") or PIPELINE,
        volume_unit=_unit(own["volume_unit"]) if "volume_unit" in own else Decimal(1),
    )


def _tenant(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ConfigError(
            f"tenant {text!r} is not a UUID", hint="it is the id of its row in the table tenants"
        ) from None


def _unit(text: str) -> Decimal:
    try:
        unit = Decimal(text)
    except InvalidOperation:
        unit = Decimal(0)
    if not (unit.is_finite() and Decimal("1e-36") <= unit <= Decimal("1e18")):
        raise ConfigError(
            f"volume_unit {text!r} is no number from 1e-36 to 1e18",
            hint="0.00000001 counts volumes in units of the eighth decimal",
        )
    return unit
