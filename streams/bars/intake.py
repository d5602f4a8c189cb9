"""The trades of a batch of records, by instrument."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.codecs.base import Codec, Row
from schemas.errors import BadTick
from schemas.replay import REPLAY_HEADER, Replay
from schemas.trade import Trade, Trades
from streams.bars.replays import only, replay_of
from streams.bars.types import Record


class Place(NamedTuple):
    """Where a trade is: the number of its record in the batch, and its own in the record."""

    record: int
    index: int


class Ticks(NamedTuple):
    """What a batch holds of one instrument, in order of arrival, and where each of them is."""

    trades: Trades
    places: list[Place] | None
    """None where each is the only one of its record."""
    numbers: list[int]
    """Of their records, ascending."""

    def place(self, i: int) -> Place:
        """Of the `i`-th."""
        return Place(self.numbers[i], 0) if self.places is None else self.places[i]

    def take(self, chosen: Sequence[int]) -> Ticks:
        """Those with these indices."""
        places = None if self.places is None else [self.places[i] for i in chosen]
        return Ticks(self.trades.take(chosen), places, [self.numbers[i] for i in chosen])


class Intake:
    """What a batch of records holds. To iterate is to get it by instrument.

    Records of one trade each, which is nearly all of nearly every feed, are decoded a run at a time where the
    codec can, and what is left to check and to convert is done an instrument at a time.
    """

    def __init__(self, records: Sequence[Record], codec: Codec) -> None:
        self.records = records
        self.malformed: list[tuple[int, BadTick, Replay | None]] = []
        """The records that cannot be decoded, by number; all are known when the iteration is over."""
        self.replays: dict[int, Replay] = {}
        """The records that are replays, by number."""
        self.skipped = 0
        """Trades of replays that are not meant."""
        self.ignored = 0
        """Records without a trade."""
        self._codec = codec
        self._rows: list[Row | Trade] = []
        self._numbers: list[int] = []
        self._indexes: dict[int, int] = {}
        """Which trade of its record one is, where it is not the first."""
        self._decode()

    def __iter__(self) -> Iterator[Ticks]:
        numbers, rows = self._numbers, self._rows
        groups: defaultdict[object, list[int]] = defaultdict(list)
        if self._codec.venue or len({row.venue for row in rows}) == 1:
            for at, symbol in enumerate([row.symbol for row in rows]):
                groups[symbol].append(at)
        else:
            for at, row in enumerate(rows):
                groups[row.venue or "", row.symbol].append(at)
        for group in groups.values():
            if (trades := self._trades(group)) is not None:
                places = None
                if self._indexes:
                    places = [Place(numbers[at], self._indexes.get(at, 0)) for at in group]
                yield Ticks(trades, places, [numbers[at] for at in group])

    def earliest_ns(self) -> int | None:
        """The earliest timestamp of a record; None where any has none."""
        stamps_ms = [record.timestamp for record in self.records]
        try:
            earliest_ms = min(stamps_ms, default=None)  # type: ignore[type-var]
        except TypeError:
            return None
        return None if earliest_ms is None or earliest_ms < 0 else earliest_ms * 1_000_000

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

    def _trades(self, group: list[int]) -> Trades | None:
        """The trades of one instrument; takes those out of the group that are none after all."""
        rows = [self._rows[at] for at in group]
        types = set(map(type, rows))
        if Trade not in types:
            try:
                return self._codec.columns(rows)
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
