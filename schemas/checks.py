"""What makes a trade usable, whatever feed it came from. Every check raises BadTick.

`make_trade` is how codecs end; the public model of a tick uses the same checks field by field.
"""

from collections.abc import Sequence
from functools import lru_cache

from schemas.dead_letter import Reason
from schemas.errors import BadTick
from schemas.fixed import OutOfRange, parse, shorten
from schemas.trade import Names, Trade

MIN_NS = 10**17
"""1973: anything smaller is a time in another unit than ns."""
MAX_NS = 2**63 - 1
"""The year 2262."""
MAX_SYMBOL = 128
MAX_VENUE = 64
MAX_ID = 128
MIN_INT_ID, MAX_INT_ID = -(2**63), 2**64 - 1
MAX_COUNT = 2**31 - 1


@lru_cache(maxsize=1 << 14)
def check_symbol(symbol: str) -> str:
    """Printable, 1 to 128 characters, without the "|" that separates the parts of a bar's key."""
    if not symbol:
        raise BadTick(Reason.bad_symbol, "symbol: is empty")
    if len(symbol) > MAX_SYMBOL or "|" in symbol or not symbol.isprintable():
        rule = f'at most {MAX_SYMBOL} printable characters, no "|"'
        raise BadTick(Reason.bad_symbol, f"symbol: {shorten(symbol)} cannot be used: {rule}")
    return symbol


@lru_cache(maxsize=1 << 10)
def check_venue(venue: str) -> str:
    """Printable, at most 64 characters, without ":" and "|"; empty means none."""
    if len(venue) > MAX_VENUE or "|" in venue or ":" in venue or not venue.isprintable():
        rule = f'at most {MAX_VENUE} printable characters, no ":" or "|"'
        raise BadTick(Reason.bad_symbol, f"venue: {shorten(venue)} cannot be used: {rule}")
    return venue


def check_names(names: Sequence[Names]) -> None:
    """`check_venue` and `check_symbol` of many at once, of which there is one at least: nearly all are good."""
    venues, symbols = zip(*names, strict=True)
    for venue in set(venues):
        check_venue(venue)
    lengths, text = set(map(len, symbols)), "".join(symbols)
    if not 1 <= min(lengths) <= max(lengths) <= MAX_SYMBOL or "|" in text or not text.isprintable():
        for symbol in symbols:
            check_symbol(symbol)


def check_ns(ts_ns: int, hint: str = "is ts_ns in ns?", field: str = "ts_ns") -> int:
    """Between 1973 and 2262: the magnitude validates the unit that the feed declares."""
    if not MIN_NS <= ts_ns <= MAX_NS:
        raise BadTick(Reason.out_of_range, f"{field}: {ts_ns} is not between 1973 and 2262: {hint}")
    return ts_ns


def check_id(trade_id: str | int) -> str | int | None:
    """A 64-bit integer, or at most 128 printable characters; the empty string is no id."""
    if isinstance(trade_id, int):
        if not MIN_INT_ID <= trade_id <= MAX_INT_ID:
            raise BadTick(Reason.out_of_range, f"trade_id: {shorten(str(trade_id))} does not fit 64 bits")
    elif len(trade_id) > MAX_ID or not trade_id.isprintable():
        rule = f"at most {MAX_ID} printable characters"
        raise BadTick(Reason.malformed, f"trade_id: {shorten(trade_id)} cannot be used: {rule}")
    return None if trade_id == "" else trade_id


def check_number(text: str, field: str) -> int:
    """The number in units of 1e-18, exactly."""
    try:
        return parse(text)
    except OutOfRange as error:
        raise BadTick(Reason.out_of_range, f"{field}: {error}") from None
    except ValueError as error:
        raise BadTick(Reason.not_a_number, f"{field}: {error}") from None


def check_size(text: str) -> int:
    """As `check_number`, and not below zero."""
    size = check_number(text, "size")
    if size < 0:
        raise BadTick(Reason.negative_size, f"size: {shorten(text)} is negative")
    return size


def make_trade(
    symbol: str,
    venue: str,
    ts_ns: int,
    price: str,
    size: str,
    trade_id: str | int | None = None,
    side: int = 0,
    count: int = 1,
    recv_ns: int | None = None,
    *,
    hint: str = "is ts_ns in ns?",
) -> Trade:
    """A checked Trade; `hint` is what to ask when the time is out of range."""
    # Every tick passes here: what is cheap to test is tested in place, and a check only says what is wrong.
    check_symbol(symbol)
    if venue:
        check_venue(venue)
    if not MIN_NS <= ts_ns <= MAX_NS:
        check_ns(ts_ns, hint)
    if trade_id is not None and not (trade_id.__class__ is int and MIN_INT_ID <= trade_id <= MAX_INT_ID):
        trade_id = check_id(trade_id)
    if recv_ns is not None and not MIN_NS <= recv_ns <= MAX_NS:
        check_ns(recv_ns, "is recv_ns in ns?", "recv_ns")
    try:
        units, quantity = parse(price), parse(size)
    except ValueError:
        units, quantity = check_number(price, "price"), check_size(size)
    if quantity < 0:
        check_size(size)
    return Trade(symbol, venue, ts_ns, units, quantity, trade_id, side, count, recv_ns)
