"""What the rate controller decided: for people and dashboards, nothing in Tidegate obeys it."""

from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from schemas.feedback import Level
from schemas.wire import Contract, Finite, Natural, decode

#: What `coordinator_id` begins with where an operator has paused a partition; who, follows.
OPERATOR = "operator "

_Scale = Annotated[float, Meta(ge=0, le=1), Field(ge=0, le=1)]


class RateAdjustment(msgspec.Struct, gc=False, kw_only=True):
    """One decision about the flow of one provider or partition."""

    provider: str
    scale: _Scale
    reason: Level
    ts: float
    topic: str | None = None
    partition: Natural | None = None
    coordinator_id: str | None = None
    since: float | None = None


class RateAdjustmentModel(Contract):
    """What share of full speed a provider of ticks is let through from now on."""

    model_config = ConfigDict(title="RateAdjustment")

    provider: str = Field(description="Whose ticks: the name of the feed in the configuration.")
    scale: _Scale = Field(description="Share of full speed: 1 is unhindered, 0 is paused.")
    reason: Annotated[Level, Field(strict=False)] = Field(description="The pressure that led to it.")
    ts: Finite = Field(description="When it was decided, seconds since the epoch.")
    topic: str | None = Field(None, description="Topic of the ticks.")
    partition: Natural | None = Field(None, description="Partition of the ticks; null means all of them.")
    coordinator_id: str | None = Field(
        None, description="The store writer whose feedback led to it, or `operator WHO`."
    )
    since: Finite | None = Field(
        None,
        description="When the partition was first held back, seconds since the epoch; null while it is not.",
    )


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(RateAdjustment)


def encode_rate(adjustment: RateAdjustment) -> bytes:
    """The value of a record on the rate topic."""
    return _encode(adjustment)


def decode_rate(value: bytes | None) -> RateAdjustment:
    """Raises BadRecord."""
    return decode(_decoder, value, "rate adjustment")
