"""One bar: what the bars topic carries, and the row that stores write."""

from typing import Annotated

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from schemas.wire import Contract, DecimalText, Name, Natural, PositiveText, Text, decode

_TYPE = r"^[1-9][0-9]{0,9}[smhd]"
_Type = Annotated[str, Meta(pattern=_TYPE + r"\Z"), Field(pattern=_TYPE + "$")]


class Bar(msgspec.Struct, gc=False):
    """The trades of one instrument in `[start_ns, end_ns)`; `BarModel` describes the fields."""

    instrument: Name
    symbol: Name
    venue: Text
    type: _Type
    start_ns: Natural
    end_ns: Natural
    open: DecimalText
    high: DecimalText
    low: DecimalText
    close: DecimalText
    volume: PositiveText
    turnover: DecimalText
    vwap: DecimalText | None
    trade_count: Natural
    buy_volume: PositiveText
    sell_volume: PositiveText
    first_trade_id: Text | None
    last_trade_id: Text | None
    first_offset: Natural
    last_offset: Natural
    source_topic: str
    source_partition: Natural
    revision: Natural
    final: bool


class BarModel(Contract):
    """The trades of one instrument in the window `[start_ns, end_ns)`, aligned to the epoch, by event time.

    Numbers are exact decimal strings. Of two versions of a bar (same instrument, type and start) the one with
    the higher (last_offset, revision) holds, and a final one beats one that is not.
    """

    model_config = ConfigDict(title="Bar")

    instrument: Name = Field(description='"VENUE:SYMBOL", or the bare symbol where no venue is given.')
    symbol: Name = Field(description="As the feed writes it.")
    venue: Text = Field(description="Empty where none is given.")
    type: _Type = Field(description="Length of the window.", examples=["1s", "1m", "4h"])
    start_ns: Natural = Field(description="Start of the window, inclusive; ns since the epoch, UTC.")
    end_ns: Natural = Field(description="End of the window, exclusive; ns since the epoch, UTC.")
    open: DecimalText = Field(description="Price of the first trade by event time, then offset.")
    high: DecimalText = Field(description="Highest price.")
    low: DecimalText = Field(description="Lowest price.")
    close: DecimalText = Field(description="Price of the last trade by event time, then offset.")
    volume: PositiveText = Field(description="Sum of the sizes, exact.")
    turnover: DecimalText = Field(description="Sum of price times size, exact.")
    vwap: DecimalText | None = Field(description="turnover / volume, rounded; null when the volume is 0.")
    trade_count: Natural = Field(description="Trades; an aggregated tick counts those it stands for.")
    buy_volume: PositiveText = Field(description="Volume whose aggressor bought.")
    sell_volume: PositiveText = Field(description="Volume whose aggressor sold. The sides may be unknown.")
    first_trade_id: Text | None = Field(description="The venue's id of the first trade, if it gives ids.")
    last_trade_id: Text | None = Field(description="The venue's id of the last trade, if it gives ids.")
    first_offset: Natural = Field(description="Lowest Kafka offset among its ticks.")
    last_offset: Natural = Field(description="Highest Kafka offset among its ticks.")
    source_topic: str = Field(description="Topic of its ticks.")
    source_partition: Natural = Field(description="Partition of its ticks, and of the bar.")
    revision: Natural = Field(description="0 when first published; grows when late ticks change it.")
    final: bool = Field(
        description="Event time has passed its end and the grace; late ticks may still revise it."
    )


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Bar)


def encode_bar(bar: Bar) -> bytes:
    """The value of a record on the bars topic."""
    return _encode(bar)


def decode_bar(value: bytes | None) -> Bar:
    """Raises BadRecord."""
    return decode(_decoder, value, "bar")


def bar_key(bar: Bar) -> bytes:
    """The record key: one per bar, so that compaction keeps every bar and only its last version."""
    return f"{bar.instrument}|{bar.type}|{bar.start_ns}".encode()


def newer(a: Bar, b: Bar) -> bool:
    """Whether version `a` of a bar beats version `b` of the same bar."""
    return (a.last_offset, a.revision, a.final) > (b.last_offset, b.revision, b.final)
