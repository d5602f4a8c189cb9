"""An operator's pause beside what stores ask for."""

from __future__ import annotations

import json
from typing import Any

from schemas.feedback import Feedback, Level
from streams.flow.controller import RateController
from streams.flow.holds import Holds
from streams.flow.policy import policy_of
from streams.flow.throttle import Throttle
from streams.flow.valve import Valve
from streams.settings import load_settings


class Told:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.rates: list[dict[str, Any]] = []

    async def send(self, topic: str, value: bytes, **kwargs: Any) -> None:
        self.rates.append(json.loads(value))


class Scene:
    """A throttle that owns partitions 0 and 1, and whoever pauses them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.valve, self.holds, told = Valve(), Holds(), Told()
        self.told = told
        self.paused: dict[int, str] = {}
        self.holds.by = self.paused.get
        producer: Any = told
        controller = RateController(policy_of(load_settings(None)), 10.0)
        self.throttle = Throttle(
            self.valve, controller, producer, "rate", "test", holds=self.holds, clock=lambda: self.now
        )
        self.throttle.own([0, 1])

    async def say(self, level: Level, partition: int = 0) -> None:
        self.now += 2
        said = Feedback(
            coordinator_id="db",
            queue_size=5,
            capacity=10,
            level=level,
            ts=self.now,
            partition=partition,
            epoch=1,
        )
        await self.throttle.hear([said])
        await self.throttle.refresh()


async def test_the_lower_of_both_holds() -> None:
    scene = Scene()
    scene.paused[0] = "me@here"
    await scene.say(Level.soft)
    assert (scene.valve.scale(0), scene.valve.scale(1)) == (0, 1)
    scene.paused.clear()
    await scene.say(Level.soft)
    assert scene.valve.scale(0) == 0.5
    await scene.say(Level.hard)
    scene.paused[0] = "me@here"
    await scene.say(Level.hard)
    scene.paused.clear()
    await scene.say(Level.hard)
    assert scene.valve.scale(0) == 0, "the store still asks for it"


async def test_it_is_told_who_holds_a_partition_back_and_since_when() -> None:
    scene = Scene()
    scene.paused[0] = "me@here"
    await scene.say(Level.ok)
    began = scene.now
    await scene.say(Level.hard)
    scene.paused.clear()
    await scene.say(Level.hard)
    await scene.say(Level.ok)
    of_0 = [rate for rate in scene.told.rates if rate["partition"] == 0 and rate["since"] is not None]
    assert [rate["coordinator_id"] for rate in of_0] == ["operator me@here", "db"]
    assert {rate["since"] for rate in of_0} == {began}
    assert scene.told.rates[-1]["scale"] == 1


async def test_a_partition_that_comes_is_paused_before_anybody_speaks_of_it() -> None:
    scene = Scene()
    scene.paused[3] = "me@here"
    scene.throttle.own([3])
    await scene.throttle.refresh()
    assert scene.valve.scale(3) == 0
    assert scene.throttle.pauses == 1
