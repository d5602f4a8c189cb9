"""Why a tick or a bar was refused, beside the record itself.

A dead letter is a record whose key and value are the original bytes, untouched, and whose header `tidegate`
holds this as JSON. So it can be produced again as it came.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from pydantic import ConfigDict, Field

from schemas.wire import Contract, Finite, Natural, decode

HEADER = "tidegate"


class Reason(StrEnum):
    """Why a tick is no part of any bar, or a bar not in the store."""

    malformed = "malformed"
    """Not a message of the declared feed: broken JSON, a field missing or of the wrong type."""
    empty = "empty"
    """A record without a value."""
    not_a_number = "not-a-number"
    out_of_range = "out-of-range"
    """A price, a size or a time that no market has; often a time in another unit than declared."""
    negative_size = "negative-size"
    bad_symbol = "bad-symbol"
    """A symbol or venue that is empty, too long, or holds what would break keys and tables."""
    future = "future"
    """Dated further ahead of its receive time than the feed is allowed."""
    late = "late"
    """Older than the grace, or than what is kept for revisions."""
    refused = "refused"
    """A bar that the store cannot hold."""
    conflict = "conflict"
    """A bar that is stored already, made of the ticks of another topic or partition."""

    @property
    def is_of_one_trade(self) -> bool:
        """Whether it says something of one trade in a record, of which others may have counted."""
        return self in (Reason.future, Reason.late)


class DeadLetter(msgspec.Struct, gc=False, kw_only=True):
    """The metadata of one refused tick or bar."""

    reason: Reason
    detail: str
    topic: str
    partition: Natural
    offset: Natural
    index: Natural = 0
    timestamp_ms: int | None = None
    source: str | None = None
    replayed: str | None = None
    ts: float

    @property
    def origin(self) -> str:
        """Where the refused record is, for people: topic[partition]@offset#index."""
        return f"{place(self.topic, self.partition, self.offset)}#{self.index}"


class DeadLetterModel(Contract):
    """Why a tick or bar was refused, and where it came from: the record header `tidegate` of a dead letter.

    The key and value of the dead letter are the refused record's own bytes.
    """

    model_config = ConfigDict(title="DeadLetter")

    reason: Annotated[Reason, Field(strict=False)] = Field(description="What is wrong, for counting.")
    detail: str = Field(description="What is wrong, for people.")
    topic: str = Field(description="Topic of the refused record.")
    partition: Natural = Field(description="Its partition.")
    offset: Natural = Field(description="Its offset.")
    index: Natural = Field(0, description="Which trade inside the record; 0 is the first, or all of it.")
    timestamp_ms: int | None = Field(None, description="The record's own timestamp, ms since the epoch.")
    source: str | None = Field(None, description='"file:line" when it was read from a file.')
    replayed: str | None = Field(
        None,
        description="topic[partition]@offset of the replay that was refused; the rest tells of the original.",
    )
    ts: Finite = Field(description="When it was refused, seconds since the epoch.")


def place(topic: str, partition: int, offset: int) -> str:
    """Where a record is, as people read and write it."""
    return f"{topic}[{partition}]@{offset}"


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(DeadLetter)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """The value of the header."""
    return _encode(letter)


def decode_dead_letter(value: bytes | None) -> DeadLetter:
    """Raises BadRecord."""
    return decode(_decoder, value, "dead letter")
