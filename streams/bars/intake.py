"""The trades of a batch of records, by instrument."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from schemas.codecs.base import Codec
from schemas.errors import BadTick
from schemas.replay import REPLAY_HEADER, Replay
from schemas.trade import Trade
from streams.bars.replays import only, replay_of
from streams.bars.types import Record


class Place(NamedTuple):
    """Where a trade is: the number of its record in the batch, and its own in the record."""

    record: int
    index: int


class Intake:
    """What a batch of records holds.

    Records of one trade each, which is nearly all of nearly every feed, are decoded and sorted by instrument
    a run at a time. `places` has only those that are elsewhere than at their own number.
    """

    def __init__(self, records: Sequence[Record], codec: Codec) -> None:
        self.records = records
        self.trades: list[Trade] = []
        self.malformed: list[tuple[int, BadTick, Replay | None]] = []
        """The records that cannot be decoded, by number."""
        self.replays: dict[int, Replay] = {}
        """The records that are replays, by number."""
        self.skipped = 0
        """Trades of replays that are not meant."""
        self.ignored = 0
        """Records without a trade."""
        self._codec = codec
        self._numbers: list[int] = []
        self._indexes: dict[int, int] = {}
        self._decode()

    def __iter__(self) -> Iterator[list[int]]:
        """What there is of each instrument, in order of arrival, as indices of `trades`."""
        groups: defaultdict[object, list[int]] = defaultdict(list)
        if len({trade.venue for trade in self.trades}) > 1:
            for at, trade in enumerate(self.trades):
                groups[trade.venue, trade.symbol].append(at)
        else:
            for at, trade in enumerate(self.trades):
                groups[trade.symbol].append(at)
        yield from groups.values()

    def place(self, at: int) -> Place:
        """Where one of `trades` is."""
        return Place(self._numbers[at], self._indexes.get(at, 0))

    def offset(self, at: int) -> int:
        """Of the record of one of `trades`."""
        return self.records[self._numbers[at]].offset

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
            self.trades += run
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
                self._indexes[len(self.trades)] = index
            self.trades.append(trade)
            self._numbers.append(number)
