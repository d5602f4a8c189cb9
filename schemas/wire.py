"""What the messages on Tidegate's own topics share: JSON, and the types of their fields.

Every message exists twice: as a msgspec struct, fast, for the machinery, and as a pydantic model, the public
contract with units and descriptions. The field types below carry the constraints of both, so that they accept
and refuse the same JSON.
"""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self, TypeVar

import msgspec
from msgspec import Meta
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import BadRecord
from schemas.fixed import MAX_TEXT

INT64_MAX = 2**63 - 1

# msgspec needs \Z at the end, as Python's "$" also matches before a final newline; JSON Schema knows no \Z.
_NAME = r"^[^|\u0000-\u001f\u007f]+"
_TEXT = r"^[^\u0000-\u001f\u007f]*"
_DECIMAL = r"^-?(0|[1-9][0-9]{0,59})(\.[0-9]{1,36})?"
_POSITIVE = r"^(0|[1-9][0-9]{0,59})(\.[0-9]{1,36})?"

Natural = Annotated[int, Meta(ge=0, le=INT64_MAX), Field(ge=0, le=INT64_MAX)]
Name = Annotated[str, Meta(pattern=_NAME + r"\Z", max_length=256), Field(pattern=_NAME + "$", max_length=256)]
Text = Annotated[str, Meta(pattern=_TEXT + r"\Z", max_length=256), Field(pattern=_TEXT + "$", max_length=256)]
DecimalText = Annotated[str, Meta(pattern=_DECIMAL + r"\Z"), Field(pattern=_DECIMAL + "$")]
PositiveText = Annotated[str, Meta(pattern=_POSITIVE + r"\Z"), Field(pattern=_POSITIVE + "$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]

T = TypeVar("T")


class Contract(BaseModel):
    """Base of the public models: immutable, no coercion between JSON types, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @classmethod
    def from_json(cls, value: bytes) -> Self:
        """Read one message; raises BadRecord with a reason for people."""
        payload = loads(value)
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            raise BadRecord(explain(error)) from None


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text if len(text) <= MAX_TEXT else "inf")
    except InvalidOperation:  # an exponent beyond what decimal holds
        return Decimal("inf")


_loads = msgspec.json.Decoder(float_hook=_exact).decode


def loads(value: bytes) -> Any:
    """Plain Python objects; numbers with a fraction or an exponent are Decimal, exactly as written."""
    try:
        return _loads(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(str(error)) from None


def explain(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: `price: Field required`."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{field}: {reason}" if field else reason


def decode(decoder: msgspec.json.Decoder[T], value: bytes | None, what: str) -> T:
    """One message of our own topics; raises BadRecord naming `what` it should have been."""
    if value is None:
        raise BadRecord(f"not a {what}: the record has no value")
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a {what}: {error}") from None
