"""The trades of a batch of records, as the engine takes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from schemas.codecs.base import Codec
from schemas.errors import BadTick
from schemas.replay import Replay
from schemas.trade import Trades
from streams.bars.records import Records
from streams.bars.replays import only, replay_of
from streams.bars.ticks import Place, Ticks

if TYPE_CHECKING:
    from streams.bars.sheet import Sheet

#: Records from which on columns are read: of fewer it costs as much to begin.
MANY: Final = 32

_sheets: ModuleType | None = None
"""What reads and folds columns, once it is there."""


def load() -> None:
    """Have columns read from now on.

    It imports what does it, and so compiles it: for a second or more, and a fraction where that was kept. Until
    then, and without it, the same comes of it in more time. Raises what numba raises; where there is none, or none
    for this numpy, that is an ImportError.
    """
    global _sheets
    import_module("streams.bars.board")  # which a sheet is given to
    _sheets = import_module("streams.bars.sheet")


class Intake:
    """What a batch of records holds: its ticks one by one, or folded already in a sheet.

    Where the codec can, a large batch is read as columns, and a smaller one, or one with a record that does not
    fit, in runs of records of one trade each.
    """

    def __init__(self, records: Records, codec: Codec, intervals_ns: Sequence[int]) -> None:
        self.records = records
        self.sheet: Sheet | None = None
        self.ticks = Ticks(Trades.none(), [])
        """Those that are not in the sheet."""
        self.malformed: list[tuple[int, BadTick, Replay | None]] = []
        """The records that cannot be decoded, by number."""
        self.replays: dict[int, Replay] = {}
        """The records that are replays, by number."""
        self.earliest_ns = records.earliest_ns()
        """The earliest timestamp of a record; None where any has none."""
        self.skipped = 0
        """Trades of replays that are not meant."""
        self.ignored = 0
        """Records without a trade."""
        self._codec = codec
        self._values: list[bytes | None] = []
        self._replayed: frozenset[int] = frozenset()
        if len(records) < MANY or _sheets is None or not self._read_columns(_sheets, intervals_ns):
            self._decode()

    def _read_columns(self, sheets: Any, intervals_ns: Sequence[int]) -> bool:
        if self.records.may_be_replays:
            return False
        columns = self._codec.read_columns(self.records.values)
        if columns is None:
            return False
        if intervals_ns:
            with suppress(OverflowError):
                self.sheet = sheets.Sheet(columns, self.records.offsets, intervals_ns)
        if self.sheet is None:
            self.ticks = sheets.ticks_of(columns)
        return True

    def _decode(self) -> None:
        self._values = values = list(self.records.values)
        self._replayed = self.records.replays()
        if self._replayed:  # no run takes them
            values = [None if number in self._replayed else value for number, value in enumerate(values)]
        decode_run = self._codec.decode_run
        number = 0
        while number < len(values):
            run = decode_run(values, number)
            self._enter(run, number)
            number += len(run)
            if number < len(values):
                self._decode_one(number)
                number += 1

    def _enter(self, run: Sequence[Any], number: int) -> None:
        """Take a run; if one of it is no good trade after all, it is found by halves."""
        if not run:
            return
        try:
            trades = self._codec.columns(run)
        except BadTick:
            half = len(run) // 2
            if half:
                self._enter(run[:half], number)
                self._enter(run[half:], number + half)
            else:
                self._decode_one(number)
        else:
            self.ticks.extend(trades, range(number, number + len(run)))

    def _decode_one(self, number: int) -> None:
        replay = None
        try:
            if number in self._replayed and (replay := replay_of(self.records[number])) is not None:
                self.replays[number] = replay
            trades = self._codec.decode(self._values[number])
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
            self.ticks.append(trade, Place(number, index))
