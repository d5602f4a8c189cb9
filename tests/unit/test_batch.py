from __future__ import annotations

from typing import NamedTuple

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streams.batch import Batch, Ledger

P0, P1 = TP("ticks", 0), TP("ticks", 1)


class Record(NamedTuple):
    offset: int


def deliver(ledger: Ledger, first: int, last: int, tp: TP = P0) -> Batch:
    return ledger.deliver(tp, [Record(offset) for offset in range(first, last + 1)])


def test_nothing_is_committable_before_an_acknowledgement() -> None:
    ledger = Ledger()
    deliver(ledger, 5, 9)
    assert ledger.committable(P0) is None
    assert ledger.partitions() == []
    assert not ledger.idle()


def test_an_acknowledged_batch_makes_the_offset_after_its_last_record_committable() -> None:
    ledger = Ledger()
    deliver(ledger, 5, 9).ack()
    assert ledger.committable(P0) == 10
    assert ledger.partitions() == [P0]
    assert ledger.idle()


def test_gaps_between_offsets_are_no_obstacle() -> None:
    ledger = Ledger()
    ledger.deliver(P0, [Record(3), Record(7)]).ack()
    ledger.deliver(P0, [Record(20), Record(21)]).ack()
    assert ledger.committable(P0) == 22


def test_only_the_acknowledged_prefix_is_committable() -> None:
    ledger = Ledger()
    first, second, third = (deliver(ledger, n, n + 9) for n in (0, 10, 20))
    third.ack()
    second.ack()
    assert ledger.committable(P0) is None
    first.ack()
    assert ledger.committable(P0) == 30


def test_partitions_do_not_wait_for_each_other() -> None:
    ledger = Ledger()
    deliver(ledger, 0, 9, P0)
    deliver(ledger, 0, 4, P1).ack()
    assert ledger.committable(P0) is None
    assert ledger.committable(P1) == 5


def test_an_acknowledgement_counts_once() -> None:
    ledger = Ledger()
    first, second = deliver(ledger, 0, 9), deliver(ledger, 10, 19)
    first.ack()
    first.ack()
    assert ledger.committable(P0) == 10
    assert ledger.in_flight(P0) == 1
    second.ack()
    assert ledger.committable(P0) == 20


def test_a_stale_acknowledgement_changes_nothing() -> None:
    ledger = Ledger()
    stale = deliver(ledger, 0, 9)
    ledger.forget([P0])
    stale.ack()
    assert ledger.committable(P0) is None


def test_a_stale_acknowledgement_does_not_vouch_for_the_same_offsets_delivered_again() -> None:
    ledger = Ledger()
    stale = deliver(ledger, 0, 9)
    ledger.forget([P0])
    again = deliver(ledger, 0, 9)
    stale.ack()
    assert ledger.committable(P0) is None
    assert ledger.in_flight(P0) == 1
    again.ack()
    assert ledger.committable(P0) == 10


def test_what_was_committable_before_a_seek_is_not_after_it() -> None:
    ledger = Ledger()
    deliver(ledger, 0, 9).ack()
    ledger.forget([P0])
    assert ledger.committable(P0) is None
    assert ledger.partitions() == []


def test_forgetting_all_spares_no_partition() -> None:
    ledger = Ledger()
    deliver(ledger, 0, 9, P0)
    deliver(ledger, 0, 9, P1).ack()
    ledger.forget()
    assert ledger.idle()
    assert ledger.partitions() == []


def test_room_is_what_does_not_wait() -> None:
    ledger = Ledger(max_waiting=2)
    first = deliver(ledger, 0, 9)
    assert ledger.has_room(P0)
    deliver(ledger, 10, 19)
    assert not ledger.has_room(P0)
    assert ledger.has_room(P1)
    first.release()
    assert ledger.has_room(P0)


def test_a_released_batch_lets_go_of_its_records_and_is_still_in_flight() -> None:
    ledger = Ledger()
    batch = deliver(ledger, 0, 9)
    batch.release()
    assert len(batch) == 0
    assert (batch.first_offset, batch.last_offset) == (0, 9)
    assert ledger.committable(P0) is None
    assert ledger.in_flight(P0) == 1


def test_room_is_announced_once_when_a_full_partition_gets_it() -> None:
    ledger = Ledger(max_waiting=2)
    announced = []
    ledger.on_room = lambda: announced.append(ledger.has_room(P0))
    first, second = deliver(ledger, 0, 9), deliver(ledger, 10, 19)
    second.ack()
    assert announced == [True]
    first.ack()
    assert announced == [True]


def test_what_was_forgotten_takes_no_room() -> None:
    ledger = Ledger(max_waiting=1)
    stale = deliver(ledger, 0, 9)
    ledger.forget([P0])
    assert ledger.has_room(P0)
    deliver(ledger, 0, 9)
    stale.ack()
    assert not ledger.has_room(P0)


def test_batches_that_nobody_took_are_not_waited_for() -> None:
    ledger = Ledger(max_waiting=3)
    taken, waiting, alone = deliver(ledger, 0, 9), deliver(ledger, 10, 19), deliver(ledger, 0, 9, P1)
    taken.taken = True
    ledger.forget_untaken()
    assert (ledger.in_flight(P0), ledger.in_flight(P1)) == (1, 0)
    waiting.ack()
    alone.ack()
    assert ledger.committable(P0) is ledger.committable(P1) is None
    taken.ack()
    assert ledger.idle()
    assert ledger.committable(P0) == 10


steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 1), st.integers(1, 5)),
        st.tuples(st.just("ack"), st.integers(0, 1), st.integers(0, 30)),
        st.tuples(st.just("release"), st.integers(0, 1), st.integers(0, 30)),
        st.tuples(st.just("seek"), st.integers(0, 1), st.integers(0, 40)),
        st.tuples(st.just("drop"), st.integers(0, 1), st.integers(0, 30)),
    ),
    max_size=60,
)


@given(steps)
def test_the_committable_offset_never_exceeds_the_first_unacknowledged_one(
    taken: list[tuple[str, int, int]],
) -> None:
    ledger = Ledger(max_waiting=3)
    position = [0, 0]
    current: list[list[Batch]] = [[], []]  # delivered since the last seek
    ever: list[list[Batch]] = [[], []]
    for step, p, n in taken:
        tp = (P0, P1)[p]
        match step:
            case "deliver":
                batch = deliver(ledger, position[p], position[p] + n - 1, tp)
                position[p] += n
                current[p].append(batch)
                ever[p].append(batch)
            case "ack" if n < len(ever[p]):
                ever[p][n].taken = True
                ever[p][n].ack()
            case "release" if n < len(ever[p]):
                ever[p][n].release()
            case "seek":
                ledger.forget([tp])
                position[p] = min(n, position[p])
                current[p] = []
            case "drop" if n < len(current[p]):
                # An agent has taken the first n of them when the queues are emptied.
                for batch in current[p][:n]:
                    batch.taken = True
                ledger.forget_untaken()
                for q in (0, 1):
                    while current[q] and not current[q][-1].taken:
                        position[q] = current[q].pop().first_offset
        for q in (0, 1):
            committable = ledger.committable((P0, P1)[q])
            unacked = [batch.first_offset for batch in current[q] if not batch.acked]
            acked = [batch.last_offset + 1 for batch in current[q] if batch.acked]
            if committable is not None:
                assert committable <= min(unacked, default=committable)
                assert committable in acked
            if current[q] and not unacked:
                assert committable == current[q][-1].last_offset + 1
            assert ledger.in_flight((P0, P1)[q]) <= len(current[q])
