"""What the queue keeps, what it drops, and which batches are finished."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog.testing
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from schemas.bar import Bar
from schemas.errors import QueueFull, StoreError
from streams.batch import Batch, Ledger
from streams.store.drops import WORST, Drops
from streams.store.overflow import Overflow
from streams.store.queue import BarQueue, Item
from support.store_contract import a_bar
from support.writing import BARS, Letter

DROPPING = [Overflow.drop_oldest, Overflow.drop_newest]


class Feeder:
    """Puts batches of bars, numbered from 0 on, and knows bars by their numbers."""

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.queue = BarQueue(capacity, overflow)
        self.ledger = Ledger()
        self.put_so_far = 0

    def records(self, number: int, tp: TP = BARS) -> list[Letter]:
        """What comes next."""
        first = self.put_so_far
        return [Letter(b"", first + n, topic=tp.topic, partition=tp.partition) for n in range(number)]

    def put(self, number: int) -> list[int]:
        """One batch; gives the numbers of the bars that were dropped for it."""
        records = self.records(number) or [Letter(None, self.put_so_far)]
        batch = self.ledger.deliver(BARS, records)
        kept = records if number else []
        self.put_so_far += number
        return offsets(self.queue.put(batch, [a_bar(start_ns=r.offset) for r in kept], kept))

    def settle(self, items: Sequence[Item]) -> None:
        for item in items:
            self.queue.settle(item)

    def finished(self) -> list[int]:
        """The first offsets of the batches that are finished."""
        return [batch.first_offset for batch in self.queue.finished(self.queue.mark())]


def offsets(items: Sequence[Item]) -> list[int]:
    assert all(item.bar.start_ns == item.record.offset for item in items)
    return [item.record.offset for item in items]


def test_the_newest_that_do_not_fit_are_dropped_and_finished_in_their_turn() -> None:
    at = Feeder(5, Overflow.drop_newest)
    assert at.put(3) == []
    assert at.put(4) == [5, 6]
    assert at.put(2) == [7, 8]
    assert len(at.queue) == 5
    assert at.finished() == []  # the last batch has nothing left, and waits for those before it
    items = at.queue.take(10)
    assert offsets(items) == [0, 1, 2, 3, 4]
    at.settle(items[:3])
    assert at.finished() == [0]
    at.settle(items[3:])
    assert at.finished() == [3, 7]
    assert at.queue.idle


def test_the_oldest_that_are_not_being_written_make_room() -> None:
    at = Feeder(4, Overflow.drop_oldest)
    at.put(4)
    being_written = at.queue.take(2)
    assert at.put(2) == []  # what is being written does not count
    assert len(at.queue) == 6
    assert at.put(3) == [2, 3, 4]
    assert offsets(being_written) == [0, 1]
    assert at.finished() == []
    at.settle(being_written)
    assert at.finished() == [0]
    rest = at.queue.take(10)
    assert offsets(rest) == [5, 6, 7, 8]
    at.settle(rest)
    assert at.finished() == [4, 6]


@pytest.mark.parametrize(
    ("overflow", "dropped"), [(Overflow.drop_oldest, [0, 1, 2]), (Overflow.drop_newest, [4, 5, 6])]
)
def test_of_a_batch_that_is_greater_than_the_queue_a_part_is_kept(
    overflow: Overflow, dropped: list[int]
) -> None:
    at = Feeder(4, overflow)
    assert at.put(7) == dropped
    assert len(at.queue) == 4


@pytest.mark.parametrize("overflow", DROPPING)
def test_a_queue_that_drops_admits_everything(overflow: Overflow) -> None:
    at = Feeder(1, overflow)
    at.put(3)
    assert at.queue.admits(at.records(9))


def test_a_queue_that_blocks_admits_a_batch_of_any_size_while_there_is_room_for_a_bar() -> None:
    at = Feeder(4, Overflow.block)
    at.put(3)
    assert at.queue.admits(at.records(100))
    assert at.put(100) == []
    assert not at.queue.admits(at.records(1))
    at.settle(at.queue.take(99))
    assert not at.queue.admits(at.records(1))
    at.settle(at.queue.take(1))
    assert at.queue.admits(at.records(1))


def test_a_queue_that_is_full_by_policy_an_error_says_of_what_where_and_what_to_do() -> None:
    at = Feeder(4, Overflow.error)
    at.put(3)
    assert at.put(3) == []
    with pytest.raises(QueueFull) as caught:
        at.queue.admits(at.records(2, TP("md.bars.v1", 3)))
    assert isinstance(caught.value, StoreError)
    assert not caught.value.retriable
    for words in ("holds 6 bars", "capacity is 4", "md.bars.v1[3]@6"):
        assert words in str(caught.value)
    for words in ("queue_capacity", 'overflow = "block"'):
        assert words in caught.value.hint
    assert at.queue.admits([])  # tombstones need no room


def test_batches_after_the_mark_are_not_finished_yet() -> None:
    at = Feeder(4, Overflow.block)
    at.put(1)
    at.settle(at.queue.take(1))
    mark = at.queue.mark()
    at.put(0)
    assert [batch.first_offset for batch in at.queue.finished(mark)] == [0]
    assert not at.queue.idle
    assert at.finished() == [1]


def test_what_is_given_up_is_not_finished_even_when_its_write_ends_later() -> None:
    at = Feeder(10, Overflow.drop_oldest)
    at.put(5)
    being_written = at.queue.take(3)
    at.queue.forget()
    assert (len(at.queue), at.queue.idle) == (0, True)
    assert at.put(4) == []
    at.settle(being_written)
    assert len(at.queue) == 4
    at.settle(at.queue.take(4))
    assert at.finished() == [5]


@given(
    st.sampled_from([Overflow.block, *DROPPING]),
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from(["put", "take", "settle"]), st.integers(0, 12)), max_size=40),
)
def test_the_queue_is_as_a_simple_one(
    overflow: Overflow, capacity: int, steps: list[tuple[str, int]]
) -> None:
    at = Feeder(capacity, overflow)
    waiting: list[int] = []
    in_write: list[Item] = []
    batches: list[tuple[Batch, range]] = []
    over: set[int] = set()  # settled or dropped
    ended: list[Batch] = []
    for step, number in steps:
        if step == "put":
            if not at.queue.admits(at.records(number)):
                assert overflow is Overflow.block
                assert len(waiting) + len(in_write) >= capacity
                continue
            first = at.put_so_far
            dropped = at.put(number)
            batches.append((at.queue._entries[-1].batch, range(first, first + number)))
            waiting += range(first, first + number)
            if overflow is Overflow.drop_oldest:
                waiting, expected = waiting[-capacity:], waiting[:-capacity]
            elif overflow is Overflow.drop_newest:
                waiting, expected = waiting[:capacity], waiting[capacity:]
            else:
                expected = []
            assert dropped == expected
            over.update(dropped)
        elif step == "take" and not in_write:
            in_write = at.queue.take(number)
            assert offsets(in_write) == waiting[:number]
            waiting = waiting[number:]
        elif step == "settle":
            at.settle(in_write[:number])
            over.update(offsets(in_write[:number]))
            in_write = in_write[number:]
        ended += at.queue.finished(at.queue.mark())
        assert len(at.queue) == len(waiting) + len(in_write)
        assert overflow is Overflow.block or len(waiting) <= capacity
        complete = [batch for batch, numbers in batches if over.issuperset(numbers)]
        unfinished = [batch for batch, numbers in batches if not over.issuperset(numbers)]
        before = (
            batches.index(next(b for b in batches if b[0] is unfinished[0])) if unfinished else len(batches)
        )
        assert ended == [batch for batch, _ in batches[:before]]
        assert len(complete) >= len(ended)


def _bars(counts: dict[str, int]) -> list[Bar]:
    return [a_bar(symbol=symbol) for symbol, number in counts.items() for _ in range(number)]


def _drop(queue: BarQueue, drops: Drops, bars: Sequence[Bar], tp: TP, first: int) -> None:
    records = [Letter(b"", first + n, topic=tp.topic, partition=tp.partition) for n in range(len(bars))]
    drops.count(queue.put(Ledger().deliver(tp, records), bars, records))


def test_what_is_dropped_is_counted_by_instrument_and_told_once() -> None:
    queue = BarQueue(1, Overflow.drop_newest)
    drops = Drops(queue)
    with structlog.testing.capture_logs() as lines:
        drops.tell()
        _drop(queue, drops, _bars({"A": 3, "B": 1}), TP("b", 1), 100)
        _drop(queue, drops, _bars({"B": 2}), TP("b", 0), 7)
        _drop(queue, drops, _bars({"A": 1}), TP("b", 1), 104)
        drops.tell()
        drops.tell()
    (line,) = lines
    assert (drops.total, drops.by_instrument) == (6, {"BINANCE:A": 3, "BINANCE:B": 3})
    assert (line["event"], line["log_level"]) == ("store.dropped", "warning")
    assert (line["dropped"], line["total"], line["other_instruments"]) == (6, 6, 0)
    assert line["instruments"] == {"BINANCE:A": 3, "BINANCE:B": 3}
    assert (line["policy"], line["queue"], line["capacity"]) == ("drop_newest", 1, 1)
    assert line["where"] == ["b[0]@7..8", "b[1]@101..104"]
    assert 'overflow = "block"' in line["hint"]
    with structlog.testing.capture_logs() as lines:
        _drop(queue, drops, _bars({"A": 1}), TP("b", 1), 105)
        drops.tell()
    assert [(line["dropped"], line["total"], line["where"]) for line in lines] == [(1, 7, ["b[1]@105..105"])]


def test_a_line_names_the_worst_instruments_and_counts_the_others() -> None:
    queue = BarQueue(1, Overflow.drop_oldest)
    drops = Drops(queue)
    with structlog.testing.capture_logs() as lines:
        _drop(queue, drops, _bars({f"S{n}": n for n in range(1, WORST + 4)} | {"KEPT": 1}), TP("b", 0), 0)
        drops.tell()
    assert lines[0]["instruments"] == {f"BINANCE:S{n}": n for n in range(4, WORST + 4)}
    assert lines[0]["other_instruments"] == 3
