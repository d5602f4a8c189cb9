"""What is said in the log, and how often."""

from __future__ import annotations

import logging

from streams.logs import Calm


def said(calm: Calm, name: str, message: str, *args: object) -> str | None:
    record = logging.LogRecord(name, logging.ERROR, "", 0, message, args, None)
    return record.getMessage() if calm.filter(record) else None


def test_a_library_says_the_same_thing_once_and_then_how_often_it_would_have() -> None:
    now = 0.0
    calm = Calm(every_s=10, clock=lambda: now)
    assert said(calm, "aiokafka", "no node %s", 1) == "no node 1"
    assert [said(calm, "aiokafka", "no node %s", node) for node in (2, 3)] == [None, None]
    assert said(calm, "aiokafka", "another thing") == "another thing"
    assert [said(calm, "streams.app", "ours") for _ in range(2)] == ["ours", "ours"]
    now = 10
    assert said(calm, "aiokafka", "no node %s", 4) == "no node 4 (and 2 more like it)"
    now = 20
    assert said(calm, "aiokafka", "no node %s", 5) == "no node 5"
