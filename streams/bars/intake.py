"""The trades of a batch of records, by instrument."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

from schemas.codecs.base import Codec, Row
from schemas.errors import BadTick
from schemas.replay import REPLAY_HEADER, Replay
from schemas.trade import Trade, Trades, instrument
from streams.bars.replays import only, replay_of
from streams.bars.ticks import Ticks
from streams.bars.types import Record

if TYPE_CHECKING:
    from streams.bars.sheet import Sheet

_headers = attrgetter("headers")

#: Records from which on columns pay.
MANY: Final = 500


class Intake:
    """What a batch of records holds. To iterate is to get it by instrument.

    Where the codec can, a large batch is read as columns (`streams.bars.sheet`), and a smaller one, or one with
    a record that does not fit, in runs of records of one trade each. What is left to check and to convert of
    these is done of all at once, or of each instrument where one of them is no good trade.
    """

    def __init__(self, records: Sequence[Record], codec: Codec, intervals_ns: Sequence[int]) -> None:
        self.records = records
        self.malformed: list[tuple[int, BadTick, Replay | None]] = []
        """The records that cannot be decoded, by number; all are known when the iteration is over."""
        self.replays: dict[int, Replay] = {}
        """The records that are replays, by number."""
        self.earliest_ns = _earliest_ns(records)
        """The earliest timestamp of a record; None where any has none."""
        self.skipped = 0
        """Trades of replays that are not meant."""
        self.ignored = 0
        """Records without a trade."""
        self._codec = codec
        self._rows: list[Row | Trade] = []
        self._numbers: list[int] = []
        self._indexes: dict[int, int] = {}
        """Which trade of its record one is, where it is not the first."""
        self._sheet = self._read_columns(intervals_ns) if len(records) >= MANY else None
        if self._sheet is None:
            self._decode()

    def __iter__(self) -> Iterator[Ticks]:
        return iter(self._sheet) if self._sheet is not None else self._by_instrument()

    def _by_instrument(self) -> Iterator[Ticks]:
        numbers, rows = self._numbers, self._rows
        groups: defaultdict[object, list[int]] = defaultdict(list)
        if self._codec.venue or len({row.venue for row in rows}) == 1:
            for at, symbol in enumerate([row.symbol for row in rows]):
                groups[symbol].append(at)
        else:
            for at, row in enumerate(rows):
                groups[instrument(row.venue or "", row.symbol)].append(at)
        trades = self._all()
        for group in groups.values():
            first = rows[group[0]]
            names = self._codec.venue or first.venue or "", first.symbol
            if trades is not None:
                yield Ticks(*names, trades, group, numbers, self._indexes)
            elif (own := self._trades(group)) is not None:
                indexes = {i: self._indexes.get(at, 0) for i, at in enumerate(group)}
                yield Ticks(*names, own, range(len(group)), [numbers[at] for at in group], indexes)

    def _read_columns(self, intervals_ns: Sequence[int]) -> Sheet | None:
        if any(map(_headers, self.records)):  # one of them may be a replay
            return None
        columns = self._codec.read_columns([record.value for record in self.records])
        if columns is None:
            return None
        from streams.bars.sheet import Sheet  # numpy, for those who need it

        with suppress(OverflowError):
            return Sheet(columns, self.records, intervals_ns)
        return None

    def _decode(self) -> None:
        values = [record.value for record in self.records]
        for number in [n for n, record in enumerate(self.records) if record.headers]:
            if any(name == REPLAY_HEADER for name, _ in self.records[number].headers):
                values[number] = None  # no run takes it
        decode_run = self._codec.decode_run
        number = 0
        while number < len(values):
            run = decode_run(values, number)
            self._rows += run
            self._numbers += range(number, number + len(run))
            number += len(run)
            if number < len(values):
                self._decode_one(number)
                number += 1

    def _decode_one(self, number: int) -> None:
        record = self.records[number]
        replay = None
        try:
            if record.headers and (replay := replay_of(record)) is not None:
                self.replays[number] = replay
            trades = self._codec.decode(record.value)
            chosen = list(enumerate(trades))
            if replay is not None and replay.index is not None:
                chosen = [only(replay.index, trades)]
                self.skipped += len(trades) - 1
        except BadTick as bad:
            self.malformed.append((number, bad, replay))
            return
        if not trades:
            self.ignored += 1
        for index, trade in chosen:
            if index:
                self._indexes[len(self._rows)] = index
            self._rows.append(trade)
            self._numbers.append(number)

    def _all(self) -> Trades | None:
        """All rows as trades; None where one of them is none, or they are of two kinds."""
        kinds = set(map(type, self._rows))
        if kinds <= {Trade}:
            return Trades.of(cast("list[Trade]", self._rows))
        with suppress(BadTick):
            return None if Trade in kinds else self._codec.columns(cast("list[Row]", self._rows))
        return None

    def _trades(self, group: list[int]) -> Trades | None:
        """The trades of one instrument; takes those out of the group that are none after all."""
        rows = [self._rows[at] for at in group]
        types = set(map(type, rows))
        if Trade not in types:
            try:
                return self._codec.columns(cast("list[Row]", rows))
            except BadTick:
                pass  # one of them, or more
        trades = []
        for at, row in zip(list(group), rows, strict=True):
            if isinstance(row, Trade):
                trades.append(row)
                continue
            try:
                trades += self._codec.decode(self.records[self._numbers[at]].value)
            except BadTick as bad:
                group.remove(at)
                self.malformed.append((self._numbers[at], bad, None))
        return Trades.of(trades) if trades else None


def _earliest_ns(records: Sequence[Record]) -> int | None:
    try:
        earliest_ms = min([record.timestamp for record in records], default=None)  # type: ignore[type-var]
    except TypeError:
        return None
    return None if earliest_ms is None or earliest_ms < 0 else earliest_ms * 1_000_000
