"""Ticks of one partition in, bars out.

The content of every bar is a function of the log alone: of the records and their offsets, never of batch
boundaries, restarts or the clock. Each tick meets these questions in this order, and the first yes decides:

1. Was it applied before a restart?               skipped
2. Is it dated further ahead of its receipt
   than `max_future_ns`, or without either?       dead letter `future`
3. Did its trade id count while the watermark
   was at most `dedupe_ns` lower?                 duplicate
4. Is it late?                                    revise, dead letter or drop, as the spec says
5. otherwise                                      it counts, and may move the watermark

So a copy of a late tick is a duplicate, and a copy dated tomorrow is a dead letter. Only ticks that count are
remembered, and only they move the watermark.

A replayed dead letter (`schemas.replay`) is judged anew by the same questions, less what refused it: its receipt
is that of the replay (2), it is a duplicate of every replay of the same trade that has counted (3), and where it
is late it revises, whatever the spec says of others (4). Of its record only the trade that was refused is looked
at. A record whose header cannot be trusted to say which one that is counts nothing: it is a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from schemas.bar import Bar
from schemas.codecs.base import Codec
from schemas.dead_letter import DeadLetter
from schemas.errors import BadTick
from schemas.replay import Replay
from schemas.trade import Names, instrument
from streams.bars.book import Book
from streams.bars.idle import IdleClock
from streams.bars.intake import Intake
from streams.bars.refusals import future, late_tick, refusal
from streams.bars.replays import has_counted
from streams.bars.state import POSITION, dump, dump_position, load, load_position
from streams.bars.ticks import Place, Tick, Ticks
from streams.bars.types import BarSpec, Counts, Late, Output, Record, feeders
from streams.bars.window import Window

if TYPE_CHECKING:
    from streams.bars.sheet import Sheet, SheetTicks


class _Batch:
    """A batch of records on its way through the engine."""

    def __init__(self, intake: Intake, now_ns: int, max_future_ns: int) -> None:
        self.intake = intake
        self.now_ns = now_ns
        self.latest_ns = -1 if intake.earliest_ns is None else intake.earliest_ns + max_future_ns
        """Up to here no record's own timestamp says that a tick is dated ahead."""
        self.counts = Counts(ignored=intake.ignored, skipped=intake.skipped)
        self.touched: dict[Book, None] = {}
        """The instruments that got ticks."""
        self.due: dict[Window, Book] = {}
        """What has closed, or was revised after it had."""
        self.refused: list[tuple[Place, Record, DeadLetter]] = []


class BarEngine:
    """The bars of one tick partition. It knows no Kafka and no clock; not thread-safe.

    The caller produces what `apply` gives, writes the rows of `changed`, and only then commits the offset.
    """

    def __init__(self, spec: BarSpec, codec: Codec, topic: str, partition: int, log_id: str = "") -> None:
        self.spec = spec
        self.topic = topic
        self.partition = partition
        self.position = -1
        """Offset of the last record applied; -1 for none."""
        self.log_id = log_id
        """Which log the offsets are of: a topic that is deleted and made anew has the same name and another id."""
        self._saved_position = -1
        self._codec = codec
        self._intervals_ns = [t.interval_ns for t, feeder in feeders(spec.bar_types) if feeder is None]
        self._books: dict[str, Book] = {}
        self._by_names: dict[Names, Book] = {}
        """The same, by venue and symbol as ticks give them."""
        self._idle = IdleClock(spec.idle_ns, spec.grace_ns)
        self._changed: dict[str, Book] = {}
        self._garbage: list[str] = []

    @property
    def instruments(self) -> KeysView[str]:
        """The instruments seen so far; a live view."""
        return self._books.keys()

    def read(self, records: Sequence[Record]) -> Intake:
        """Decode records, for `apply`: what needs nothing that the engine knows. From any thread."""
        return Intake(records, self._codec, self._intervals_ns)

    def apply(self, records: Sequence[Record], now_ns: int, intake: Intake | None = None) -> Output:
        """Take records in offset order. `now_ns` feeds the idle clock and dates dead letters, no more.

        Records at or before `position` were applied already, and are passed over. `intake` is what `read` made
        of these records, where that was done before.
        """
        if records and records[0].offset <= self.position:
            records = [record for record in records if record.offset > self.position]
            intake = None
        intake = intake or self.read(records)
        batch = _Batch(intake, now_ns, self.spec.max_future_ns)
        if intake.sheet is not None:
            self._take_sheet(batch, intake.sheet)
        self._take(batch, intake.ticks)
        self._settle(batch)
        for number, bad, replay in intake.malformed:
            batch.counts.ticks += 1
            self._refuse(batch, Place(number, 0), bad, replay)
        if records:
            self.position = records[-1].offset
        batch.refused.sort(key=itemgetter(0))
        return Output(
            self._publish(((book, window, window) for window, book in batch.due.items()), final=True),
            [(record, letter) for _, record, letter in batch.refused],
            batch.counts,
        )

    def idle(self, now_ns: int) -> list[Bar]:
        """Bars that are over by the clock, of instruments that are quiet, published early with `final` false.

        This closes nothing and makes nothing late. Call it only when all there is has been applied.
        """
        return self._publish(self._idle.due(now_ns), final=False)

    def close(self) -> list[Bar]:
        """At the end of a finite input: every open window that has not been published so, as final.

        If there is more after all, it counts: what it changes is published again when it closes.
        """
        due = []
        for book in self._books.values():
            for series, window in book.open_windows():
                whole = book.whole(series, window)
                if not window.is_published(whole.trade_count):
                    due.append((book, window, whole))
        return self._publish(due, final=True)

    def changed(self) -> dict[str, bytes | None]:
        """The state rows that changed since the last call; None deletes one.

        Write them in this order to one compacted partition: every prefix of them is a consistent state.
        """
        rows: dict[str, bytes | None] = dict.fromkeys(self._garbage)
        self._garbage.clear()
        for book in self._changed.values():
            rows.update(dump(book, self.spec))
        self._changed.clear()
        if self.position != self._saved_position:
            self._saved_position = self.position
            rows[POSITION] = dump_position(self.position, self.log_id)
        return rows

    def restore(self, rows: Mapping[str, bytes]) -> None:
        """Start from state rows, into an engine that has applied nothing.

        Raises StateError for rows that cannot be read, that are of other bar types, or of another log.
        """
        rows = dict(rows)
        # Rows of one call of `changed` may have been cut off: `position` is what all of them contain.
        if (row := rows.pop(POSITION, None)) is not None:
            self.position = self._saved_position = load_position(row, self.log_id)
        books, self._garbage = load(rows, self.spec)
        for book in books:
            self._books[book.name] = book
            self._idle.set(book, 0)

    def _book(self, names: Names) -> Book:
        name = instrument(*names)
        book = self._books.get(name)
        if book is None:
            venue, symbol = names
            self._books[name] = book = Book(name, symbol, venue, self.spec.bar_types)
        self._by_names[names] = book
        return book

    def _take_sheet(self, batch: _Batch, sheet: Sheet) -> None:
        """Take a batch that is folded: the windows of an instrument where all of its ticks count, and in time."""
        records, counts = batch.intake.records, batch.counts
        for ticks in sheet:
            book = self._by_names.get(ticks.names) or self._book(ticks.names)
            new = records[ticks.numbers[0]].offset > book.offset
            if new and self._all_count(batch, book, ticks):
                book.offset = records[ticks.numbers[-1]].offset
                book.index = 0
                counts.ticks += len(ticks)
                counts.accepted += len(ticks)
                ticks.fold(book)
                batch.touched[book] = None
            else:
                self._take(batch, ticks.ticks())

    def _all_count(self, batch: _Batch, book: Book, ticks: SheetTicks) -> bool:
        """Whether all of these ticks count, and in time: what `_take` asks one by one, asked of all.

        If so, the watermark and the memory of trade ids are those after the last of them.
        """
        summary, grace_ns = ticks.summary, self.spec.grace_ns
        if (
            summary.newest_ns > batch.latest_ns
            or (
                summary.received_ns is not None
                and summary.newest_ns > summary.received_ns + self.spec.max_future_ns
            )
            or summary.oldest_ns < max(book.horizon_ns, book.watermark_ns - grace_ns)
            or summary.lag_ns > grace_ns
            or (self.spec.dedupe_ns is not None and not ticks.enter(book.seen, book.watermark_ns))
        ):
            return False
        book.advance(summary.newest_ns, grace_ns)
        return True

    def _take(self, batch: _Batch, ticks: Ticks) -> None:
        """Ask the questions of each tick in turn, and let it count where they say so.

        What is here in full is for the many; a tick that may be late or dated ahead, or is replayed, is asked
        once more, in `_is_in_time`.
        """
        counts, touched, records, replays = (
            batch.counts,
            batch.touched,
            batch.intake.records,
            batch.intake.replays,
        )
        latest_ns, max_future_ns = batch.latest_ns, self.spec.max_future_ns
        grace_ns, dedupe_ns = self.spec.grace_ns, self.spec.dedupe_ns
        find, book_of = self._by_names.get, self._book
        asked = accepted = skipped = duplicates = 0
        for tick in ticks:
            number, index, names, ts_ns, price, size, trade_id, side, count, received_ns = tick
            book = find(names) or book_of(names)
            offset = records[number].offset
            if offset <= book.offset and (offset, index) <= (book.offset, book.index):
                skipped += 1
                continue
            asked += 1
            book.offset = offset
            book.index = index
            touched[book] = None
            watermark_ns = book.watermark_ns
            if (
                ts_ns < book.horizon_ns
                or ts_ns > latest_ns
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
                if ts_ns - grace_ns > book.horizon_ns:
                    book.horizon_ns = ts_ns - grace_ns
            for series in book.roots:
                window = series.windows.get(ts_ns - ts_ns % series.interval_ns)
                if window is None:
                    window = book.window(series, ts_ns)
                window.add(ts_ns, price, size, trade_id, side, count, offset)
        counts.ticks += asked
        counts.accepted += accepted
        counts.skipped += skipped
        counts.duplicates += duplicates

    def _is_in_time(self, batch: _Batch, book: Book, tick: Tick) -> bool:
        """Ask the questions 2 to 5 of a tick that may be unusual; whether it counts, and in time.

        If it does, it is remembered, and the rest is for the caller; all else is seen to.
        """
        number, index, _, ts_ns, price, size, trade_id, side, count, received_ns = tick
        spec, counts, seen = self.spec, batch.counts, book.seen
        place, record = Place(number, index), batch.intake.records[number]
        replay = batch.intake.replays.get(number)
        stamp_ms = record.timestamp
        stamp_ns = None if stamp_ms is None or stamp_ms < 0 else stamp_ms * 1_000_000
        if received_ns is None or (stamp_ns is not None and (stamp_ns < received_ns or replay is not None)):
            received_ns = stamp_ns
        if received_ns is None or ts_ns > received_ns + spec.max_future_ns:
            self._refuse(batch, place, future(ts_ns, received_ns, spec.max_future_ns), replay)
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
                self._refuse(batch, place, late_tick(ts_ns, book.watermark_ns, floor_ns), replay)
                return False
        mark_ns = max(book.watermark_ns, ts_ns)
        if trade_id is not None and spec.dedupe_ns is not None:
            seen.put(trade_id, mark_ns)
        if identity is not None:
            seen.put(identity, mark_ns)
        if late:
            counts.accepted += 1
            for window in book.revise(ts_ns, price, size, trade_id, side, count, record.offset):
                batch.due[window] = book
                book.retain(window)
        return not late

    def _settle(self, batch: _Batch) -> None:
        """See to the instruments that got ticks: what has ended closes, and what is of no use is forgotten."""
        now_ns, due, retaining = batch.now_ns, batch.due, self.spec.late is not Late.DROP
        changed = self._changed
        for book in batch.touched:
            book.active_ns = now_ns
            changed[book.name] = book
            if not book.alarmed:
                self._idle.set(book, now_ns)
            if book.horizon_ns >= book.next_end_ns:
                for window in book.close():
                    if not window.is_published(window.trade_count):
                        due[window] = book
                    if retaining:
                        book.retain(window)
            # Only now: what is forgotten is too late for the last tick, not for all of them.
            if book.seen.is_full or len(book.closed.entries) > book.closed.room:
                book.forget(self.spec)

    def _publish(self, due: Iterable[tuple[Book, Window, Window]], *, final: bool) -> list[Bar]:
        """Make bars of windows, each with what it holds as a whole."""
        bars = []
        for book, window, whole in sorted(due, key=lambda item: item[1].end_ns):
            window.published = whole.trade_count
            window.final = whole.final = final
            bars.append(whole.bar(book.name, book.symbol, book.venue, self.topic, self.partition))
            self._changed[book.name] = book
        return bars

    def _refuse(self, batch: _Batch, place: Place, bad: BadTick, replay: Replay | None) -> None:
        batch.counts.dead_lettered += 1
        record = batch.intake.records[place.record]
        letter = refusal(self.topic, self.partition, record, place.trade, bad, batch.now_ns, replay)
        batch.refused.append((place, record, letter))
