from __future__ import annotations

from collections.abc import Iterator

from streams.pace import Pace, by_event_time

T0 = 1_723_161_255_000_000_000


def test_the_first_tick_is_due_at_once_and_others_by_event_time() -> None:
    pace = Pace(10)

    assert pace.wait_s(T0, 100.0) == 0
    assert pace.wait_s(T0 + 20 * 10**9, 100.0) == 2
    assert pace.wait_s(T0 + 20 * 10**9, 101.5) == 0.5


def test_a_tick_that_is_overdue_does_not_wait() -> None:
    pace = Pace(1)
    pace.wait_s(T0, 100.0)

    assert pace.wait_s(T0 + 10**9, 105.0) == 0


def test_a_tick_out_of_order_does_not_overtake_those_before_it() -> None:
    pace = Pace(1)
    pace.wait_s(T0, 100.0)
    pace.wait_s(T0 + 10 * 10**9, 100.0)

    assert pace.wait_s(T0 + 9 * 10**9, 100.0) == 10
    assert pace.wait_s(T0 - 10**9, 100.0) == 10


def test_recordings_are_played_beside_each_other_each_in_its_own_order() -> None:
    first: list[tuple[str, int | None]] = [("a", 10), ("b", None), ("c", 30), ("d", 20)]
    second: list[tuple[str, int | None]] = [("A", 15), ("B", 15), ("C", 31)]

    played = by_event_time([first, second], lambda item: item[1])

    assert [name for name, _ in played] == ["a", "b", "A", "B", "c", "d", "C"]


def test_recordings_without_any_time_are_played_one_after_the_other() -> None:
    assert list(by_event_time([["a", "b"], [], ["c"]], lambda item: None)) == ["a", "b", "c"]


def test_nothing_is_read_further_ahead_than_needed() -> None:
    read = []

    def recording() -> Iterator[int]:
        for ts_ns in range(5):
            read.append(ts_ns)
            yield ts_ns

    played = by_event_time([recording()], lambda item: item)

    assert next(played) == 0
    assert read == [0]
