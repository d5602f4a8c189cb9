"""What rows of the state say, read by the description of them alone, and a compacted topic that has them."""

from dataclasses import astuple

import msgspec

from schemas.fixed import TURNOVER_SCALE, parse_rendered
from streams.bars.replays import is_replayed
from streams.bars.types import BarType
from streams.bars.window import Window, empty

UNIT = 10**9
WINDOW = 21


class Changelog(dict):
    """A compacted topic."""

    def write(self, rows, up_to=None):
        """Rows in their order; only the first so many where the writing is cut off."""
        for key, row in list(rows.items())[:up_to]:
            self.pop(key, None)
            if row is not None:
                self[key] = row


def decoded(row):
    """The content of a row."""
    version, content = msgspec.msgpack.decode(row)
    assert version == 6
    return content


def encoded(content):
    """A row of this content."""
    return msgspec.msgpack.encode((6, content))


def counting(rows):
    """The names of the rows that count, by kind."""
    if "" not in rows:
        return {"names": [], "open": [], "past": []}
    _, _, instruments, of_open, of_past = decoded(rows[""])
    return {
        "names": [f"names|{n}" for n in range(-(-instruments // 1024))],
        "open": [f"open|{n}" for n in range(*of_open)],
        "past": [f"past|{n}" for n in range(*of_past)],
    }


def contents(rows, a_spec):
    """The position, and by name what is of use of each instrument: clock, open and closed windows, trade ids."""
    names, position, kinds = [], None, counting(rows)
    if "" in rows:
        position = decoded(rows[""])[:2]
    for row in kinds["names"]:
        symbols, venues = decoded(rows[row])
        names += [
            f"{venue}:{symbol}" if venue else symbol for symbol, venue in zip(symbols, venues, strict=True)
        ]
    clocks, opened, closed, ids = {}, {}, {name: {} for name in names}, {name: {} for name in names}
    for row in kinds["open"]:
        numbers, windows = decoded(rows[row])
        for slot, *clock in numbers_of(numbers, 5):
            clocks[names[slot]], opened[names[slot]] = clock, {}
        for slot, window in windows_of(windows, is_open=True):
            opened[names[slot]][window.bar_type, window.start_ns] = astuple(window)
    for row in kinds["past"]:
        _, windows, pairs, of, others, others_ns = decoded(rows[row])
        for slot, window in windows_of(windows, is_open=False):
            _, horizon_ns, floor_ns, _ = clocks[names[slot]]
            its = closed[names[slot]]
            its.pop((window.bar_type, window.start_ns), None)
            if window.end_ns > max(floor_ns, horizon_ns - a_spec.revisable_ns):
                its[window.bar_type, window.start_ns] = astuple(window)
        for slot, trade_id, mark_ns in [*numbers_of(pairs, 3), *zip(of, others, others_ns, strict=True)]:
            *_, floor_ns, remembered_ns = clocks[names[slot]]
            if mark_ns >= (min(floor_ns, remembered_ns) if is_replayed(trade_id) else remembered_ns):
                ids[names[slot]][trade_id] = max(mark_ns, ids[names[slot]].get(trade_id, 0))
    return position, {name: (clocks[name], opened[name], closed[name], ids[name]) for name in sorted(names)}


def numbers_of(data, width):
    """Rows of numbers of 8 bytes."""
    numbers = [int.from_bytes(data[at : at + 8], "little", signed=True) for at in range(0, len(data), 8)]
    return [tuple(numbers[at : at + width]) for at in range(0, len(numbers), width)]


def windows_of(content, *, is_open):
    """Windows with the numbers of their instruments."""
    bar_types, packed, first_ids, last_ids, of, others = content
    first_ids, last_ids = iter(first_ids), iter(last_ids)
    for row in numbers_of(packed, WINDOW):
        slot, start_ns, which, open_ns, close_ns, *prices, volume, high, low, bought, sold, trades = row[:15]
        first_id, last_id, first, last, is_closed, published = row[15:]
        bar_type = BarType.parse(bar_types[which])
        end_ns = start_ns + bar_type.interval_ns
        if not trades:
            yield slot, empty(bar_type.name, start_ns, end_ns, published)
            continue
        yield (
            slot,
            Window(
                bar_type.name,
                start_ns,
                end_ns,
                open_ns,
                close_ns,
                *(price * UNIT for price in prices),
                volume * UNIT,
                (high * 2**64 + low % 2**64) * UNIT**2,
                bought * UNIT,
                sold * UNIT,
                trades,
                next(first_ids) if first_id == -2 else None if first_id == -1 else first_id,
                next(last_ids) if last_id == -2 else None if last_id == -1 else last_id,
                first,
                last,
                0,
                published,
                bool(is_closed),
            ),
        )
    for slot, row in zip(of, others, strict=True):
        name, start_ns, end_ns, *prices, open_ns, close_ns = row[:9]
        volume, turnover, bought, sold, *rest = row[9:]
        if is_open:
            numbers = list(map(int, [*prices, volume, turnover, bought, sold]))
        else:
            numbers = list(map(parse_rendered, [*prices, volume]))
            numbers += [parse_rendered(turnover, TURNOVER_SCALE), *map(parse_rendered, [bought, sold])]
        yield slot, Window(name, start_ns, end_ns, open_ns, close_ns, *numbers, *rest)
