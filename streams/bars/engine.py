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

from schemas.bar import Bar
from schemas.codecs.base import Codec
from schemas.dead_letter import DeadLetter
from schemas.errors import BadTick
from schemas.replay import Replay
from schemas.trade import instrument
from streams.bars.book import Book
from streams.bars.idle import IdleClock
from streams.bars.intake import Intake
from streams.bars.refusals import future, late_tick, refusal
from streams.bars.replays import has_counted
from streams.bars.state import POSITION, dump, dump_position, load, load_position
from streams.bars.ticks import Place, SummedTicks, Ticks
from streams.bars.types import BarSpec, Counts, Late, Output, Record, feeders
from streams.bars.window import Window

#: The row of a late tick that counts, and the horizon when it came.
_Late = tuple[int, int]


class _Batch:
    """A batch of records on its way through the engine."""

    def __init__(self, intake: Intake, now_ns: int) -> None:
        self.intake = intake
        self.now_ns = now_ns
        self.earliest_ns = intake.earliest_ns
        self.counts = Counts(ignored=intake.ignored, skipped=intake.skipped)
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
        batch = _Batch(intake, now_ns)
        for ticks in intake:
            self._apply(batch, ticks)
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

    def _book(self, ticks: Ticks) -> Book:
        name = instrument(ticks.venue, ticks.symbol)
        book = self._books.get(name)
        if book is None:
            self._books[name] = book = Book(name, ticks.symbol, ticks.venue, self.spec.bar_types)
        return book

    def _apply(self, batch: _Batch, ticks: Ticks) -> None:
        """Take the ticks of one instrument."""
        records = batch.intake.records
        book = self._book(ticks)
        if records[ticks.numbers[ticks.rows[0]]].offset <= book.offset:
            places = [(row, ticks.place(row)) for row in ticks.rows]
            applied = book.offset, book.index
            new = [row for row, at in places if (records[at.record].offset, at.trade) > applied]
            batch.counts.skipped += len(places) - len(new)
            if not new:
                return
            ticks = ticks.only(new)
        last = ticks.place(ticks.rows[-1])
        book.offset = records[last.record].offset
        book.index = last.trade
        book.active_ns = batch.now_ns
        self._changed[book.name] = book
        self._idle.set(book, batch.now_ns)
        batch.counts.ticks += len(ticks)

        late: list[_Late] = []
        if isinstance(ticks, SummedTicks) and self._all_count(batch, book, ticks):
            batch.counts.accepted += len(ticks)
            ticks.fold(book, records)
        else:
            in_time, late = self._judge(batch, book, ticks)
            batch.counts.accepted += len(in_time) + len(late)
            if in_time:
                ticks.only(in_time).fold(book, records)
        for row, horizon_ns in late:
            for window in book.revised(ticks.trades, row, records[ticks.numbers[row]].offset, horizon_ns):
                batch.due[window] = book
                book.retain(window)
        if book.horizon_ns >= book.next_end_ns:
            for window in book.close():
                if not window.is_published(window.trade_count):
                    batch.due[window] = book
                if self.spec.late is not Late.DROP:
                    book.retain(window)
        # Only now: what is forgotten is too late for the last tick, not for all of them.
        book.forget(self.spec)

    def _all_count(self, batch: _Batch, book: Book, ticks: SummedTicks) -> bool:
        """Whether all of these ticks count, and in time: what is asked one by one in `_judge`, asked of all.

        If so, the watermark and the memory of trade ids are those after the last of them.
        """
        summary, received_ns, grace_ns = ticks.summary, batch.earliest_ns, self.spec.grace_ns
        if received_ns is None or batch.intake.replays:
            return False
        if summary.received_ns is not None:
            received_ns = min(received_ns, summary.received_ns)
        if (
            summary.newest_ns > received_ns + self.spec.max_future_ns
            or summary.oldest_ns < max(book.horizon_ns, book.watermark_ns - grace_ns)
            or summary.lag_ns > grace_ns
            or (self.spec.dedupe_ns is not None and not ticks.enter(book.seen, book.watermark_ns))
        ):
            return False
        book.advance(summary.newest_ns, grace_ns)
        return True

    def _judge(self, batch: _Batch, book: Book, ticks: Ticks) -> tuple[list[int], list[_Late]]:
        """Ask the questions 2 to 5 of each tick in turn; gives the rows that count, in time and late."""
        intake, counts, spec = batch.intake, batch.counts, self.spec
        trades = ticks.trades
        seen, dedupe_ns = book.seen, spec.dedupe_ns
        in_time: list[int] = []
        late: list[_Late] = []
        numbers, records, replays = ticks.numbers, intake.records, intake.replays
        for row in ticks.rows:
            ts_ns, trade_id, received_ns = trades.ts_ns[row], trades.trade_id[row], trades.recv_ns[row]
            replay = replays.get(numbers[row])
            stamp_ms = records[numbers[row]].timestamp
            stamp_ns = None if stamp_ms is None or stamp_ms < 0 else stamp_ms * 1_000_000
            if received_ns is None or (
                stamp_ns is not None and (stamp_ns < received_ns or replay is not None)
            ):
                received_ns = stamp_ns
            if received_ns is None or ts_ns > received_ns + spec.max_future_ns:
                bad_date = future(ts_ns, received_ns, spec.max_future_ns)
                self._refuse(batch, ticks.place(row), bad_date, replay)
                continue

            identity = None if replay is None else replay.identity(ticks.place(row).trade)
            if identity is not None and has_counted(book, identity, spec):
                counts.duplicates += 1
                continue
            if dedupe_ns is None:
                trade_id = None
            if trade_id is not None:
                seen_ns = seen.get(trade_id)
                if seen_ns is not None and seen_ns >= book.watermark_ns - (dedupe_ns or 0):
                    counts.duplicates += 1
                    continue

            if ts_ns < book.horizon_ns:
                counts.late += 1
                floor_ns = book.earliest_ns(spec)
                if spec.late is not Late.REVISE and replay is None:
                    if spec.late is Late.DROP:
                        counts.dropped += 1
                        continue
                    floor_ns = book.horizon_ns
                if ts_ns < floor_ns:
                    too_late = late_tick(ts_ns, book.watermark_ns, floor_ns)
                    self._refuse(batch, ticks.place(row), too_late, replay)
                    continue
                late.append((row, book.horizon_ns))
            else:
                in_time.append(row)
                book.advance(ts_ns, spec.grace_ns)
            if trade_id is not None:
                seen.put(trade_id, book.watermark_ns)
            if identity is not None:
                seen.put(identity, book.watermark_ns)
        return in_time, late

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
