from __future__ import annotations

from typing import Any

import pytest
from faust.types import TP

from schemas.feedback import Feedback, Level, encode_feedback
from streams.batch import Batch, Ledger
from streams.flow.controller import RateController
from streams.flow.policy import policy_of
from streams.flow.throttle import Throttle
from streams.flow.valve import Valve
from streams.settings import load_settings


class Mute:
    """A producer that nobody hears."""

    async def send(self, *args: Any, **kwargs: Any) -> None:
        pass


class Record:
    topic, partition, offset, timestamp, key, headers = "feedback", 0, 0, 0, None, ()

    def __init__(self, value: bytes) -> None:
        self.value = value


def said(level: str, ts: float) -> Feedback:
    return Feedback(
        coordinator_id="a", queue_size=5, capacity=10, level=Level(level), ts=ts, partition=0, epoch=1
    )


def batch_of(*feedback: Feedback) -> Batch:
    return Ledger(4).deliver(TP("feedback", 0), [Record(encode_feedback(each)) for each in feedback])


async def test_feedback_on_its_way_when_a_partition_went_says_nothing_when_it_comes_back() -> None:
    now = 1000.0
    valve = Valve()
    controller = RateController(policy_of(load_settings(None, policy="aimd")), 10.0)
    producer: Any = Mute()
    throttle = Throttle(valve, controller, producer, "rate", "test", clock=lambda: now)
    throttle.own([0])
    throttle.own([])
    await throttle.take(batch_of(said("ok", now)))
    now += 3600
    throttle.own([0])
    await throttle.hear([said("soft", now)])
    assert valve.scale(0) == pytest.approx(1.0), "an hour elsewhere is no hour of pressure"
