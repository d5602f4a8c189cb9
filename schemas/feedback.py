"""How full the store's queue is: what closes the loop from the database to the tick partitions."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from schemas.wire import INT64_MAX, Contract, Finite, Natural, decode

_Capacity = Annotated[int, Meta(ge=1, le=INT64_MAX), Field(ge=1, le=INT64_MAX)]
_Scale = Annotated[float, Meta(ge=0, le=1), Field(ge=0, le=1)]
_Rate = Annotated[float, Meta(ge=0), Field(ge=0, allow_inf_nan=False)]
_Id = Annotated[str, Meta(min_length=1), Field(min_length=1)]


class Level(StrEnum):
    """Pressure, from none to stop."""

    ok = "ok"
    soft = "soft"
    """Slow down."""
    hard = "hard"
    """Stop."""


class Feedback(msgspec.Struct, gc=False, kw_only=True):
    """The state of one store partition's queue at one moment."""

    coordinator_id: _Id
    queue_size: Natural
    capacity: _Capacity
    level: Level
    source: str = "store"
    ts: float
    partition: Natural
    epoch: Natural
    drain_rate: _Rate | None = None
    arrival_rate: _Rate | None = None
    dropped: Natural = 0
    scale: _Scale | None = None


class FeedbackModel(Contract):
    """How full the queue before the database is, for one partition; on the same partition number."""

    model_config = ConfigDict(title="Feedback")

    coordinator_id: _Id = Field(description="Who measures: one store writer.")
    queue_size: Natural = Field(description="Bars waiting. May exceed the capacity for a moment.")
    capacity: _Capacity = Field(description="Bars the queue is meant to hold.")
    level: Annotated[Level, Field(strict=False)] = Field(description="What is asked of the producers.")
    source: str = Field("store", description="Kind of the sender.")
    ts: Finite = Field(description="When it was measured, seconds since the epoch.")
    partition: Natural = Field(description="The partition it is about.")
    epoch: Natural = Field(description="When the coordinator started, ms since the epoch; the newest holds.")
    drain_rate: _Rate | None = Field(
        None, description="Bars per second that the database takes; null: unknown."
    )
    arrival_rate: _Rate | None = Field(
        None, description="Bars per second that come into the queue; null: unknown."
    )
    dropped: Natural = Field(
        0,
        description="Bars that this coordinator has dropped since it started, of all partitions. "
        "Those that a rebalance brings again are taken off.",
    )
    scale: _Scale | None = Field(
        None,
        description="The share of full speed that the sender asks for, in place of what the policy makes of the "
        "level: of a rate controller outside. null: the policy decides.",
    )


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Feedback)


def encode_feedback(feedback: Feedback) -> bytes:
    """The value of a record on the feedback topic."""
    return _encode(feedback)


def decode_feedback(value: bytes | None) -> Feedback:
    """Raises BadRecord."""
    return decode(_decoder, value, "feedback message")
