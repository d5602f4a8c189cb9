from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.flow.retention import Backlog, Retention

DAY_MS = 86_400_000


def test_a_topic_that_is_only_compacted_keeps_all() -> None:
    assert Retention.of({"cleanup.policy": "compact", "retention.ms": "1000"}).is_forever
    assert Retention.of({"cleanup.policy": "compact,delete", "retention.ms": "1000"}) == Retention(1000)
    assert Retention.of({"retention.ms": "-1", "retention.bytes": "-1"}).is_forever
    assert Retention.of({"cleanup.policy": "delete", "retention.bytes": "5"}) == Retention(size=5)


def test_by_age_it_is_that_of_the_oldest_unread_record() -> None:
    backlog = Backlog(first=0, end=100, position=40, oldest_ms=DAY_MS)
    assert backlog.unread == 60
    assert backlog.used(Retention(DAY_MS), DAY_MS + DAY_MS // 4) == 0.25
    assert backlog.left_s(Retention(DAY_MS), DAY_MS + DAY_MS // 4) == 0.75 * DAY_MS / 1000


def test_what_is_read_uses_nothing() -> None:
    backlog = Backlog(first=0, end=100, position=100, oldest_ms=0)
    assert backlog.used(Retention(1, 1), DAY_MS) == 0
    assert backlog.left_s(Retention(1, 1), DAY_MS) is None


def test_by_size_it_is_the_share_of_the_log_once_something_was_deleted() -> None:
    assert Backlog(first=1000, end=2000, position=1200, record_bytes=1).used(Retention(size=9), 0) == 0.8
    assert Backlog(first=0, end=1000, position=500, record_bytes=200).used(Retention(size=400_000), 0) == 0.25


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 2000), st.integers(0, 10_000))
def test_it_only_grows_while_nothing_is_read(first: int, more: int, position: int, waited_ms: int) -> None:
    before = Backlog(first, first + more, min(position, first + more), 0, 100)
    after = Backlog(first, first + more + 50, before.position, 0, 100)
    for kept in (Retention(60_000), Retention(size=1 << 20)):
        used = before.used(kept, 1000)
        assert after.used(kept, 1000 + waited_ms) >= used or used == pytest.approx(1)
