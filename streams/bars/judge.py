"""Which ticks count.

Each tick meets these questions in this order, and the first yes decides:

1. Is it dated further ahead of its receipt
   than `max_future_ns`, or without either?       dead letter `future`
2. Did its trade id count while the watermark
   was at most `dedupe_ns` lower?                 duplicate
3. Is it late?                                    revise, dead letter or drop, as the spec says
4. otherwise                                      it counts, and may move the watermark

So a copy of a late tick is a duplicate, and a copy dated tomorrow is a dead letter. Only ticks that count are
remembered, and only they move the watermark.

A replayed dead letter (`schemas.replay`) is judged anew by the same questions, less what refused it: its receipt
is that of the replay (1), it is a duplicate of every replay of the same trade that has counted (2), and where it
is late it revises, whatever the spec says of others (3). Of its record only the trade that was refused is looked
at. A record whose header cannot be trusted to say which one that is counts nothing: it is a dead letter.

Most ticks need none of the answers but that nothing is the matter, so each is asked what rules out most of them
at once (`Judge.take`), or even all ticks that a batch has of an instrument (`Judge.take_sheet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.bar import Bar
from schemas.dead_letter import DeadLetter
from schemas.errors import BadTick
from schemas.replay import Replay
from streams.bars.book import Book, Books, Series
from streams.bars.intake import Intake
from streams.bars.refusals import future, late_tick, refusal
from streams.bars.replays import has_counted
from streams.bars.ticks import Place, Tick, Ticks
from streams.bars.types import BarSpec, Counts, Late, Record
from streams.bars.upkeep import Upkeep
from streams.bars.window import Window

if TYPE_CHECKING:
    from streams.bars.sheet import Sheet


class Batch:
    """A batch of records on its way through the engine."""

    def __init__(self, number: int, intake: Intake, now_ns: int, max_future_ns: int) -> None:
        self.number = number
        """From 1 on."""
        self.intake = intake
        self.now_ns = now_ns
        self.latest_ns = -1 if intake.earliest_ns is None else intake.earliest_ns + max_future_ns
        """Up to here no record's own timestamp says that a tick is dated ahead."""
        self.counts = Counts(ignored=intake.ignored, skipped=intake.skipped)
        self.due: dict[Window, Book] = {}
        """What has closed, or was revised after it had."""
        self.bars: list[Bar] = []
        """Of what has closed besides, in order of their ends."""
        self.refused: list[tuple[Place, Record, DeadLetter]] = []


class Judge:
    """Asks the questions, and lets what counts count in the books."""

    def __init__(
        self,
        spec: BarSpec,
        books: Books,
        series: Sequence[Series],
        upkeep: Upkeep,
        topic: str,
        partition: int,
    ) -> None:
        self.spec = spec
        self._series = series
        self._roots = [one for one in series if one.feeder is None]
        self._books = books
        self._upkeep = upkeep
        self._topic = topic
        self._partition = partition

    def take_sheet(self, batch: Batch, sheet: Sheet) -> None:
        """Take a batch that is folded: the windows of an instrument where all of its ticks count, and in time."""
        if self._upkeep.board is None:
            # It takes its time to import, as a sheet does.
            from streams.bars.board import Board

            self._upkeep.board = Board(self._upkeep, self._series, self._books, self._topic, self._partition)
        if doubted := self._upkeep.board.take(batch, sheet):
            self.take(batch, sheet.ticks(doubted))

    def take(self, batch: Batch, ticks: Ticks) -> None:
        """Ask the questions of each tick in turn, and let it count where they say so.

        What is here in full is for the many; a tick that may be late or dated ahead, or is replayed, is asked
        once more, in `_is_in_time`.
        """
        counts, due, replays = batch.counts, batch.due, batch.intake.replays
        records, offsets = batch.intake.records, batch.intake.records.offsets
        latest_ns, max_future_ns = batch.latest_ns, self.spec.max_future_ns
        grace_ns, dedupe_ns = self.spec.grace_ns, self.spec.dedupe_ns
        books, roots, upkeep, this = self._books, self._roots, self._upkeep, batch.number
        asked = accepted = duplicates = 0
        for tick in ticks:
            number, _, names, ts_ns, price, size, trade_id, side, count, received_ns = tick
            book = books[names]
            asked += 1
            if book.batch != this:
                upkeep.begin(book, this, batch.now_ns)
            watermark_ns = book.watermark_ns
            if (
                ts_ns < book.horizon_ns
                or (
                    ts_ns > latest_ns
                    and ts_ns > (records.timestamps[number] or 0) * 1_000_000 + max_future_ns
                )
                or (received_ns is not None and ts_ns > received_ns + max_future_ns)
                or (replays and number in replays)
            ):
                if not self._is_in_time(batch, book, tick):
                    continue
            elif (
                trade_id is not None
                and dedupe_ns is not None
                and not book.seen.enter(
                    trade_id,
                    ts_ns if ts_ns > watermark_ns else watermark_ns,  # noqa: FURB136 `max` costs four times as much
                    watermark_ns - dedupe_ns,
                )
            ):
                duplicates += 1
                continue
            accepted += 1
            if ts_ns > watermark_ns:
                book.watermark_ns = ts_ns
                horizon_ns = ts_ns - grace_ns
                if horizon_ns > book.horizon_ns:
                    book.horizon_ns = horizon_ns
                    if horizon_ns >= book.next_end_ns:
                        upkeep.close(book, due)
            for series in roots:
                window = book.windows.get(ts_ns - ts_ns % series.interval_ns + series.number)
                if window is None:
                    window = book.window(series, ts_ns)
                window.add(ts_ns, price, size, trade_id, side, count, offsets[number])
        counts.ticks += asked
        counts.accepted += accepted
        counts.duplicates += duplicates

    def _is_in_time(self, batch: Batch, book: Book, tick: Tick) -> bool:
        """Ask all questions of a tick that may be unusual; whether it counts, and in time.

        If it does, it is remembered, and the rest is for the caller; all else is seen to.
        """
        number, index, _, ts_ns, price, size, trade_id, side, count, received_ns = tick
        spec, counts, seen = self.spec, batch.counts, book.seen
        place, records = Place(number, index), batch.intake.records
        replay = batch.intake.replays.get(number)
        stamp_ms = records.timestamps[number]
        stamp_ns = None if stamp_ms is None or stamp_ms < 0 else stamp_ms * 1_000_000
        if received_ns is None or (stamp_ns is not None and (stamp_ns < received_ns or replay is not None)):
            received_ns = stamp_ns
        if received_ns is None or ts_ns > received_ns + spec.max_future_ns:
            self.refuse(batch, place, future(ts_ns, received_ns, spec.max_future_ns), replay)
            return False

        identity = None if replay is None else replay.identity(index)
        if identity is not None and has_counted(book, identity, spec):
            counts.duplicates += 1
            return False
        known = None if trade_id is None or spec.dedupe_ns is None else seen.get(trade_id)
        if known is not None and known >= book.watermark_ns - (spec.dedupe_ns or 0):
            counts.duplicates += 1
            return False

        late = ts_ns < book.horizon_ns
        if late:
            counts.late += 1
            floor_ns = book.earliest_ns(spec)
            if spec.late is not Late.REVISE and replay is None:
                if spec.late is Late.DROP:
                    counts.dropped += 1
                    return False
                floor_ns = book.horizon_ns
            if ts_ns < floor_ns:
                self.refuse(batch, place, late_tick(ts_ns, book.watermark_ns, floor_ns), replay)
                return False
        mark_ns = max(book.watermark_ns, ts_ns)
        if trade_id is not None and spec.dedupe_ns is not None:
            seen.put(trade_id, mark_ns)
        if identity is not None:
            seen.put(identity, mark_ns)
        if late:
            counts.accepted += 1
            if self._upkeep.board is not None:
                self._upkeep.board.give_back_closed(book, ts_ns)
            for key, window in book.revise(
                ts_ns, price, size, trade_id, side, count, records.offsets[number]
            ):
                batch.due[window] = book
                book.closed.put(key, window)
        return not late

    def refuse(self, batch: Batch, place: Place, bad: BadTick, replay: Replay | None) -> None:
        """Dead-letter a trade, or all of a record."""
        batch.counts.dead_lettered += 1
        record = batch.intake.records[place.record]
        letter = refusal(self._topic, self._partition, record, place.trade, bad, batch.now_ns, replay)
        batch.refused.append((place, record, letter))
