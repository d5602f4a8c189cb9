"""Ticks of one partition in, bars out.

The content of every bar is a function of the log alone: of the records and their offsets, never of batch
boundaries, restarts or the clock. Which ticks count is told at the head of `judge`.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Final

from schemas.bar import Bar
from schemas.codecs.base import Codec
from streams.bars.book import Book, Books, series_of
from streams.bars.intake import Intake
from streams.bars.judge import Batch, Judge
from streams.bars.records import records_of
from streams.bars.restore import restore
from streams.bars.rows import closed_row
from streams.bars.state import StateLog
from streams.bars.ticks import Place
from streams.bars.types import BarSpec, Output, Record
from streams.bars.upkeep import Upkeep
from streams.bars.window import Window

#: With more windows than these within the grace ticks are judged one by one: a `Board` looks for the window of a
#: tick from the latest on, a `Book` by its key.
_MANY_OPEN: Final = 128


class BarEngine:
    """The bars of one tick partition. It knows no Kafka and no clock; not thread-safe.

    The caller produces what `apply` gives, writes the rows of `changed`, and only then commits the offset.
    """

    def __init__(
        self,
        spec: BarSpec,
        codec: Codec,
        topic: str,
        partition: int,
        log_id: str = "",
        *,
        keep_state: bool = True,
    ) -> None:
        """Without `keep_state` nobody asks for `changed`."""
        self.spec = spec
        self.topic = topic
        self.partition = partition
        self.position = -1
        """Offset of the last record applied; -1 for none."""
        self.log_id = log_id
        """Which log the offsets are of: a topic that is deleted and made anew has the same name and another id."""
        self._codec = codec
        self._series = series_of(spec.bar_types)
        self._intervals_ns = [series.interval_ns for series in self._series if series.feeder is None]
        if spec.grace_ns // min(self._intervals_ns) > _MANY_OPEN:
            self._intervals_ns.clear()
        self._books: dict[str, Book] = {}
        self._upkeep = Upkeep(spec, keep_state=keep_state)
        self._all = Books(self._books, self._series)
        self._judge = Judge(spec, self._all, self._series, self._upkeep, topic, partition)
        self._batches = 0
        self._state = StateLog(spec, self._all.numbered, log_id)

    @property
    def instruments(self) -> KeysView[str]:
        """The instruments seen so far; a live view."""
        return self._books.keys()

    def read(self, records: Sequence[Record]) -> Intake:
        """Decode records, for `apply`: what needs nothing that the engine knows. From any thread."""
        return Intake(records_of(records), self._codec, self._intervals_ns)

    def apply(self, records: Sequence[Record], now_ns: int, intake: Intake | None = None) -> Output:
        """Take records in offset order. `now_ns` feeds the idle clock and dates dead letters, no more.

        Records at or before `position` were applied already, and are passed over. `intake` is what `read` made
        of these records, where that was done before.
        """
        intake = intake or self.read(records)
        offsets = intake.records.offsets
        if offsets and offsets[0] <= self.position:
            intake = self.read(intake.records.after(self.position))
            offsets = intake.records.offsets
        self._batches += 1
        batch = Batch(self._batches, intake, now_ns, self.spec.max_future_ns)
        if intake.sheet is not None:
            self._judge.take_sheet(batch, intake.sheet)
        self._judge.take(batch, intake.ticks)
        for number, bad, replay in intake.malformed:
            batch.counts.ticks += 1
            self._judge.refuse(batch, Place(number, 0), bad, replay)
        if offsets:
            self.position = offsets[-1]
        batch.refused.sort(key=itemgetter(0))
        bars = self._publish(((book, window, window) for window, book in batch.due.items()), final=True)
        if batch.bars:
            bars = sorted([*batch.bars, *bars], key=attrgetter("end_ns")) if bars else batch.bars
        return Output(
            bars,
            [(record, letter) for _, record, letter in batch.refused],
            batch.counts,
        )

    def idle(self, now_ns: int) -> list[Bar]:
        """Bars that are over by the clock, of instruments that are quiet, published early with `final` false.

        This closes nothing and makes nothing late. Call it only when all there is has been applied.
        """
        return self._publish(self._upkeep.idle.due(now_ns, self._upkeep.board), final=False)

    def close(self) -> list[Bar]:
        """At the end of a finite input: every open window that has not been published so, as final.

        If there is more after all, it counts: what it changes is published again when it closes.
        """
        due = []
        if self._upkeep.board is not None:
            self._upkeep.board.release_all()
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
        rows = self._state.save(self._upkeep.changed, self._upkeep.board, self.position)
        self._upkeep.changed.clear()
        return rows

    def restore(self, rows: Mapping[str, bytes]) -> None:
        """Start from state rows, into an engine that has applied nothing.

        Raises StateError for rows that cannot be read, that are of other bar types, or of another log.
        """
        books, changed = restore(rows, self._state, self.spec, self._series)
        for book in books:
            self._all.add(book)
            self._upkeep.idle.set(book, 0)
        self._upkeep.changed.update(dict.fromkeys(changed))
        self.position = self._state.position

    def _publish(self, due: Iterable[tuple[Book, Window, Window]], *, final: bool) -> list[Bar]:
        """Make bars of windows, each with what it holds as a whole."""
        bars = []
        keep_rows, changed = self._upkeep.keep_rows, self._upkeep.changed
        for book, window, whole in sorted(due, key=lambda item: item[1].end_ns):
            window.published = whole.trade_count
            window.final = whole.final = final
            bar = whole.bar(book.name, book.symbol, book.venue, self.topic, self.partition)
            bars.append(bar)
            if keep_rows and window.end_ns <= book.horizon_ns:
                book.rows.append(closed_row(window, bar))
            changed[book] = None
        return bars
