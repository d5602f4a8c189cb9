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

from schemas.bar import Bar
from schemas.codecs.base import Codec
from schemas.errors import BadTick
from schemas.replay import Replay
from schemas.trade import Trade, instrument
from streams.bars.book import Book
from streams.bars.idle import IdleClock
from streams.bars.refusals import future, late_tick, refusal
from streams.bars.replays import has_counted, only, replay_of
from streams.bars.state import POSITION, dump, dump_position, load, load_position
from streams.bars.types import BarSpec, Late, Output, Record
from streams.bars.window import EARLY, FINAL, Window


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
        self._decode = codec.decode
        self._books: dict[str, Book] = {}
        self._idle = IdleClock(spec.idle_ns, spec.grace_ns)
        self._changed: dict[str, Book] = {}
        self._garbage: list[str] = []
        self._batch = 0

    @property
    def instruments(self) -> KeysView[str]:
        """The instruments seen so far; a live view."""
        return self._books.keys()

    def apply(self, records: Sequence[Record], now_ns: int) -> Output:
        """Take records in offset order. `now_ns` feeds the idle clock and dates dead letters, no more.

        Records at or before `position` were applied already, and are passed over.
        """
        output = Output()
        if records and records[0].offset <= self.position:
            records = [record for record in records if record.offset > self.position]
        counts = output.counts
        due: dict[Window, Book] = {}
        self._batch = batch = self._batch + 1
        books = self._books
        decode = self._decode
        grace_ns = self.spec.grace_ns
        max_future_ns = self.spec.max_future_ns
        dedupe_ns = self.spec.dedupe_ns
        late = self.spec.late
        ticks = accepted = 0

        for record in records:
            replay = None
            try:
                if record.headers:
                    replay = replay_of(record)
                trades = decode(record.value)
                numbered: Iterable[tuple[int, Trade]] = enumerate(trades)
                if replay is not None and replay.index is not None:
                    numbered = only(replay.index, trades)
                    counts.skipped += len(trades) - 1
            except BadTick as bad:
                counts.ticks += 1
                self._refuse(output, record, 0, bad, now_ns, replay)
                continue
            if not trades:
                counts.ignored += 1
                continue
            offset = record.offset
            stamp_ms = record.timestamp
            stamp_ns = None if stamp_ms is None or stamp_ms < 0 else stamp_ms * 1_000_000

            for index, trade in numbered:
                name = instrument(trade.venue, trade.symbol)
                book = books.get(name)
                if book is None:
                    books[name] = book = Book(name, trade.symbol, trade.venue, self.spec.bar_types)
                if offset <= book.offset and (offset < book.offset or index <= book.index):
                    counts.skipped += 1
                    continue
                book.offset = offset
                book.index = index
                ticks += 1
                if book.batch != batch:
                    book.batch = batch
                    book.active_ns = now_ns
                    self._changed[name] = book
                    self._idle.set(book, now_ns)

                ts_ns = trade.ts_ns
                received_ns = trade.recv_ns
                if received_ns is None or (
                    stamp_ns is not None and (stamp_ns < received_ns or replay is not None)
                ):
                    received_ns = stamp_ns
                if received_ns is None or ts_ns > received_ns + max_future_ns:
                    bad_date = future(ts_ns, received_ns, max_future_ns)
                    self._refuse(output, record, index, bad_date, now_ns, replay)
                    continue

                if replay is not None and has_counted(book, replay.identity(index), self.spec):
                    counts.duplicates += 1
                    continue
                trade_id = trade.trade_id
                if trade_id is not None and dedupe_ns is not None:
                    seen_ns = book.seen.entries.get(trade_id)
                    if seen_ns is not None:
                        if seen_ns >= book.watermark_ns - dedupe_ns:
                            counts.duplicates += 1
                            continue
                        book.seen.remove(trade_id)

                if ts_ns < book.horizon_ns:
                    counts.late += 1
                    floor_ns = book.earliest_ns(self.spec)
                    if late is not Late.REVISE and replay is None:
                        if late is Late.DROP:
                            counts.dropped += 1
                            continue
                        floor_ns = book.horizon_ns
                    if ts_ns < floor_ns:
                        too_late = late_tick(ts_ns, book.watermark_ns, floor_ns)
                        self._refuse(output, record, index, too_late, now_ns, replay)
                        continue
                    self._revise(book, trade, offset, due)
                else:
                    turnover = trade.price * trade.size
                    if not book.from_ns <= ts_ns < book.until_ns:
                        book.turn(trade, offset)
                    for window in book.current:
                        window.add(trade, turnover, offset)
                accepted += 1
                if ts_ns > book.watermark_ns:
                    book.watermark_ns = ts_ns
                    if ts_ns - grace_ns > book.horizon_ns:
                        book.horizon_ns = ts_ns - grace_ns
                        if book.horizon_ns >= book.next_end_ns:
                            self._close(book, due)
                if trade_id is not None and dedupe_ns is not None:
                    seen = book.seen
                    seen.entries[trade_id] = book.watermark_ns
                    if len(seen.entries) > seen.room:
                        book.forget_trades(self.spec)
                if replay is not None:
                    book.seen.put(replay.identity(index), book.watermark_ns)
                    if len(book.seen.entries) > book.seen.room:
                        book.forget_trades(self.spec)

        counts.ticks += ticks
        counts.accepted = accepted
        if records:
            self.position = records[-1].offset
        output.bars = self._publish(due.items(), FINAL)
        return output

    def idle(self, now_ns: int) -> list[Bar]:
        """Bars that are over by the clock, of instruments that are quiet, published early with `final` false.

        This closes nothing and makes nothing late. Call it only when all there is has been applied.
        """
        due = {window: book for book, window in self._idle.due(now_ns)}
        return self._publish(due.items(), EARLY)

    def close(self) -> list[Bar]:
        """At the end of a finite input: every open window that has not been published so, as final.

        If there is more after all, it counts: what it changes is published again when it closes.
        """
        due = {w: book for book in self._books.values() for w in book.open_windows() if w.mark != FINAL}
        return self._publish(due.items(), FINAL)

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

    def _revise(self, book: Book, trade: Trade, offset: int, due: dict[Window, Book]) -> None:
        """Let a late tick count in all its windows, open, closed or yet unknown."""
        ts_ns = trade.ts_ns
        turnover = trade.price * trade.size
        for series in book.series:
            start_ns = ts_ns - ts_ns % series.interval_ns
            end_ns = start_ns + series.interval_ns
            if end_ns > book.horizon_ns:
                window = book.window(series, trade, offset)
            else:
                known = book.closed.entries.get((series.name, start_ns))
                if known is None:
                    window = Window(series.name, start_ns, end_ns, trade.price, offset)
                else:
                    window = known
                    window.revision += 1
                due[window] = book
                self._retain(book, window)
            window.add(trade, turnover, offset)

    def _close(self, book: Book, due: dict[Window, Book]) -> None:
        for window in book.close():
            if window.mark != FINAL:
                due[window] = book
            if self.spec.late is not Late.DROP:
                self._retain(book, window)

    def _retain(self, book: Book, window: Window) -> None:
        book.closed.put((window.bar_type, window.start_ns), window)
        if len(book.closed.entries) > book.closed.room:
            book.forget_windows(self.spec)

    def _publish(self, due: Iterable[tuple[Window, Book]], mark: int) -> list[Bar]:
        bars = []
        for window, book in sorted(due, key=lambda item: item[0].end_ns):
            window.mark = mark
            bars.append(window.bar(book.name, book.symbol, book.venue, self.topic, self.partition))
            self._changed[book.name] = book
        return bars

    def _refuse(
        self, output: Output, record: Record, index: int, bad: BadTick, now_ns: int, replay: Replay | None
    ) -> None:
        output.counts.dead_lettered += 1
        letter = refusal(self.topic, self.partition, record, index, bad, now_ns, replay)
        output.dead.append((record, letter))
