"""What core's protocols ask for, and what Tidegate's classes have, held against the published package."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

import pytest
from market_data_core.events.protocols import EventBus
from market_data_core.protocols import FeedbackPublisher, RateController
from market_data_core.telemetry import BackpressureLevel, FeedbackEvent, RateAdjustment

from schemas.errors import BadRecord, ConfigError
from streams.ecosystem.event_bus import KafkaEventBus
from streams.ecosystem.feedback_bus import FeedbackBus
from streams.ecosystem.feedback_handler import FeedbackHandler
from streams.ecosystem.rate import KafkaRateController, RateCoordinatorAdapter

NOBODY = "127.0.0.1:1"


class Applied:
    """A rate controller of a user's, which writes down what it applies."""

    def __init__(self) -> None:
        self.adjustments: list[RateAdjustment] = []

    async def apply(self, adjustment: RateAdjustment) -> None:
        self.adjustments.append(adjustment)

    @property
    def last(self) -> tuple[float, str]:
        return self.adjustments[-1].scale, self.adjustments[-1].reason.value


class Coordinator:
    """The two methods of market-data-pipeline's RateCoordinator that its adapter calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, object]] = []

    async def set_global_pressure(self, provider: str, level: str) -> None:
        self.calls.append(("pressure", provider, level))

    async def set_budget_scale(self, provider: str, scale: float) -> None:
        self.calls.append(("scale", provider, scale))


def event(level: str, ts: float | None = None, by: str = "bars") -> FeedbackEvent:
    return FeedbackEvent(
        coordinator_id=by,
        queue_size=850,
        capacity=1000,
        level=BackpressureLevel(level),
        ts=time.time() if ts is None else ts,
    )


def adjustment(scale: float = 0.5, level: str = "soft") -> RateAdjustment:
    return RateAdjustment(provider="ibkr", scale=scale, reason=BackpressureLevel(level), ts=time.time())


def parameters(function: Callable[..., object]) -> list[tuple[str, object, object]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.covers("RateController")
def test_rate_controllers_are_core_s() -> None:
    for controller in (KafkaRateController(NOBODY), RateCoordinatorAdapter(Coordinator())):
        assert isinstance(controller, RateController)
        assert inspect.iscoroutinefunction(controller.apply)
        assert inspect.signature(controller.apply).return_annotation in (None, "None")


@pytest.mark.covers("FeedbackPublisher")
def test_the_feedback_bus_is_a_feedback_publisher() -> None:
    bus = FeedbackBus(NOBODY)
    assert isinstance(bus, FeedbackPublisher)
    assert inspect.iscoroutinefunction(bus.publish)
    assert inspect.signature(bus.publish).return_annotation in (None, "None")


@pytest.mark.covers("event bus")
def test_the_event_bus_is_core_s_in_every_signature() -> None:
    for name in ("publish", "ack", "fail", "health"):
        ours, core = getattr(KafkaEventBus, name), getattr(EventBus, name)
        assert inspect.iscoroutinefunction(ours)
        assert parameters(ours) == parameters(core)
    # Core declares a coroutine, and its buses are async generators, as their users need.
    assert inspect.isasyncgenfunction(KafkaEventBus.subscribe)
    assert parameters(KafkaEventBus.subscribe) == parameters(EventBus.subscribe)


@pytest.mark.covers("RateController")
@pytest.mark.parametrize("level", list(BackpressureLevel))
async def test_the_adapter_asks_a_coordinator_as_the_pipeline_s_does(level: BackpressureLevel) -> None:
    coordinator = Coordinator()
    asked = adjustment(0.25, level.value)
    assert await RateCoordinatorAdapter(coordinator).apply(asked) is None  # type: ignore[func-returns-value]
    assert coordinator.calls == [("pressure", "ibkr", level.value), ("scale", "ibkr", 0.25)]


@pytest.mark.covers("RateController")
async def test_an_adjustment_that_core_did_not_check_is_refused_before_anything_is_applied() -> None:
    coordinator = Coordinator()
    wrong = RateAdjustment.model_construct(provider="ibkr", scale=2.0, reason=BackpressureLevel.ok, ts=1.0)
    with pytest.raises(BadRecord, match="scale"):
        await RateCoordinatorAdapter(coordinator).apply(wrong)
    assert coordinator.calls == []
    with pytest.raises(BadRecord, match="scale"):
        await KafkaRateController(NOBODY).apply(wrong)
    with pytest.raises(BadRecord, match="level 'high' is not known"):
        await KafkaRateController(NOBODY).set_global_pressure("ibkr", "high")


@pytest.mark.covers("FeedbackEvent")
@pytest.mark.parametrize(("level", "scale"), [("ok", 1.0), ("soft", 0.5), ("hard", 0.0)])
async def test_the_handler_applies_a_scale_for_each_level(level: str, scale: float) -> None:
    rate = Applied()
    handler = FeedbackHandler(rate=rate, provider="ibkr")
    assert await handler.handle(event(level)) is None  # type: ignore[func-returns-value]
    assert rate.last == (scale, level)
    assert rate.adjustments[0].provider == "ibkr"


@pytest.mark.covers("custom policies")
@pytest.mark.parametrize(
    "policy",
    [{"ok": 0.9, "soft": 0.4}, {BackpressureLevel.ok: 0.9, BackpressureLevel.soft: 0.4}],
    ids=["by name", "by core's level"],
)
async def test_the_handler_takes_a_policy_of_one_s_own(policy: dict[str, float]) -> None:
    rate = Applied()
    handler = FeedbackHandler(rate, "ibkr", policy)
    for level, scale in (("ok", 0.9), ("soft", 0.4), ("hard", 0.0)):
        await handler.handle(event(level))
        assert rate.last == (scale, level)
    assert handler.policy[BackpressureLevel.soft] == 0.4


@pytest.mark.covers("custom policies")
@pytest.mark.parametrize("policy", [{"high": 0.5}, {"ok": 1.5}, {"ok": float("nan")}])
def test_a_policy_that_cannot_be_meant_is_refused(policy: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="policy: "):
        FeedbackHandler(Applied(), "ibkr", policy)


@pytest.mark.covers("FeedbackEvent")
@pytest.mark.covers("escalation")
async def test_the_worst_of_several_stores_decides_and_a_stale_word_changes_nothing() -> None:
    rate = Applied()
    handler = FeedbackHandler(rate, "ibkr")
    await handler.handle(event("soft", 100.0, "a"))
    await handler.handle(event("hard", 101.0, "b"))
    await handler.handle(event("ok", 102.0, "a"))
    assert rate.last == (0.0, "hard"), "another one's ok does not end it"
    await handler.handle(event("ok", 99.0, "b"))
    assert rate.last == (0.0, "hard"), "nor does one of its own from before"
    await handler.handle(event("ok", 103.0, "b"))
    assert rate.last == (1.0, "ok")


@pytest.mark.covers("recovery")
async def test_a_pause_ends_by_itself_when_its_store_has_gone_silent() -> None:
    rate, open_again = Applied(), asyncio.Event()

    async def apply(adjustment: RateAdjustment) -> None:
        await Applied.apply(rate, adjustment)
        if adjustment.scale == 1:
            open_again.set()

    rate.apply = apply  # type: ignore[method-assign]
    handler = FeedbackHandler(rate, "ibkr", ttl_s=0.05)
    await handler.handle(event("hard"))
    assert rate.last == (0.0, "hard")
    await asyncio.wait_for(open_again.wait(), 5)
    assert rate.last == (1.0, "ok")
    await handler.close()


@pytest.mark.covers("recovery")
async def test_without_a_time_to_live_the_last_word_holds() -> None:
    now = 1000.0
    rate = Applied()
    handler = FeedbackHandler(rate, "ibkr", clock=lambda: now)
    await handler.handle(event("hard", now))
    now += 1e6
    await handler.refresh()
    assert rate.last == (0.0, "hard")
