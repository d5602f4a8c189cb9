"""A tick as Tidegate's own JSON writes it: the public contract of the tick topic.

    Tick.from_json(b'{"symbol":"BTCUSDT","ts_ns":1723161255342000000,"price":"61837.63","size":"0.02"}')

The hot path, `schemas.codecs.tidegate`, accepts and refuses the same JSON, faster; this model says why.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from schemas import checks
from schemas.errors import BadTick
from schemas.fixed import parse, render
from schemas.trade import Trade
from schemas.wire import Contract

SIDES = {"buy": 1, "sell": -1, None: 0}


def _checked(check: Callable[[Any], Any], what: str, *types: type) -> BeforeValidator:
    """A check of the hot path as a validator: `what` names in words the types that it takes."""

    def validate(value: object) -> object:
        if type(value) not in types:
            raise ValueError(f"should be {what}")
        try:
            return check(value)
        except BadTick as error:
            raise ValueError(error.detail.partition(": ")[2]) from None

    return BeforeValidator(validate)


def _number(check: Callable[[str], int], pattern: str, **number: int) -> tuple[Any, ...]:
    def exact(value: str | int | Decimal) -> Decimal:
        return Decimal(render(check(str(value))))

    return (
        _checked(exact, "a decimal string or a JSON number", str, int, Decimal),
        PlainSerializer(lambda value: render(parse(str(value))), return_type=str),
        WithJsonSchema({"anyOf": [{"type": "string", "pattern": pattern}, {"type": "number", **number}]}),
    )


def _check_price(text: str) -> int:
    return checks.check_number(text, "price")


def _check_recv_ns(recv_ns: int) -> int:
    return checks.check_ns(recv_ns, "is recv_ns in ns?", "recv_ns")


_DECIMAL = r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_NS = {"type": "integer", "minimum": checks.MIN_NS, "maximum": checks.MAX_NS}

Price = Annotated[Decimal, *_number(_check_price, "^-?" + _DECIMAL)]
Size = Annotated[Decimal, *_number(checks.check_size, "^" + _DECIMAL, minimum=0)]
Symbol = Annotated[
    str,
    _checked(checks.check_symbol, "a string", str),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": checks.MAX_SYMBOL}),
]
Venue = Annotated[
    str,
    _checked(checks.check_venue, "a string", str),
    WithJsonSchema({"type": "string", "maxLength": checks.MAX_VENUE}),
]
TsNs = Annotated[int, _checked(checks.check_ns, "an integer", int), WithJsonSchema(_NS)]
RecvNs = Annotated[int, _checked(_check_recv_ns, "an integer", int), WithJsonSchema(_NS)]
TradeId = Annotated[
    str | int | None,
    _checked(checks.check_id, "an integer or a string", str, int),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": checks.MIN_INT_ID, "maximum": checks.MAX_INT_ID},
                {"type": "string", "maxLength": checks.MAX_ID},
            ]
        }
    ),
]
Count = Annotated[int, Field(ge=1, le=checks.MAX_COUNT)]


class Tick(Contract):
    """One trade at a venue. Unknown fields are ignored; an optional field may also be null.

    Write price and size as decimal strings. A JSON number is taken exactly as written, but many programs
    write floats, with digits nobody traded at. At most 18 digits before the point and 18 after it.
    """

    model_config = ConfigDict(
        title="Tick",
        json_schema_extra={
            "examples": [
                {
                    "symbol": "BTCUSDT",
                    "venue": "BINANCE",
                    "ts_ns": 1723161255342000000,
                    "price": "61837.63",
                    "size": "0.02",
                    "trade_id": 3735683259,
                    "side": "sell",
                },
                {"symbol": "BTCUSDT", "ts_ns": 1723161255342000000, "price": "61837.63", "size": "0.02"},
            ]
        },
    )

    symbol: Symbol = Field(description='As the feed writes it: printable characters, no "|".')
    ts_ns: TsNs = Field(description="When the venue says it happened: ns since the epoch, UTC.")
    price: Price = Field(description="Price; may be zero or negative.", examples=["61837.63"])
    size: Size = Field(description="Quantity; a size of zero only sets prices.", examples=["0.02"])
    venue: Venue | None = Field(None, description='Printable characters, no ":" or "|".')
    trade_id: TradeId | None = Field(None, description="The venue's id; duplicates are found by it.")
    side: Literal["buy", "sell"] | None = Field(None, description="What the aggressor did.")
    recv_ns: RecvNs | None = Field(None, description="When the recorder got it: ns since the epoch, UTC.")
    count: Count | None = Field(
        None, description="Trades it stands for, where the venue aggregates; null is 1."
    )

    def to_trade(self, venue: str = "") -> Trade:
        """The same trade for the bar engine; a configured venue wins over the tick's own."""
        return Trade(
            self.symbol,
            venue or self.venue or "",
            self.ts_ns,
            parse(str(self.price)),
            parse(str(self.size)),
            self.trade_id,
            SIDES[self.side],
            self.count or 1,
            self.recv_ns,
        )
