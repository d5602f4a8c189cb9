"""What is waited for, for how long, and what people hear of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina
from structlog.testing import capture_logs

from schemas.errors import BadBar, StoreError, StoreInUse, StoreRefused, StoreTooSlow, StoreUnavailable
from streams.store import patience
from streams.store.patience import Patience

AWAY = StoreUnavailable("db: connection refused", hint="is it running?")
REFUSED = StoreRefused("db: permission denied", hint="grant it")


@pytest.fixture(autouse=True)
def _without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10_000):
        yield


class Store:
    """Fails with these errors, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_what_passes_is_tried_until_it_succeeds() -> None:
    waiting = Patience(None, lambda: 7)
    assert await waiting(Store(*[AWAY] * 400)) == "done"
    assert (waiting.reached, waiting.error) == (True, None)


@pytest.mark.parametrize("error", [REFUSED, StoreInUse("taken")])
async def test_what_people_must_mend_is_an_error_at_first_and_waited_for_later(error: StoreError) -> None:
    waiting = Patience(None, lambda: 0)
    with pytest.raises(StoreRefused):
        await waiting(Store(AWAY, error))
    await waiting(Store())
    assert await waiting(Store(error, AWAY, error)) == "done"


@pytest.mark.parametrize("error", [BadBar("no"), StoreError("TypeError: a bug"), ValueError("a bug")])
async def test_what_no_waiting_mends_is_raised_at_once(error: Exception) -> None:
    waiting = Patience(None, lambda: 0)
    await waiting(Store())
    with pytest.raises(type(error)):
        await waiting(Store(error))


async def test_a_write_that_took_too_long_is_not_tried_again_where_it_can_be_smaller() -> None:
    waiting = Patience(None, lambda: 0)
    with pytest.raises(StoreTooSlow):
        await waiting(Store(StoreTooSlow("slow")), unless=(StoreTooSlow,))
    assert await waiting(Store(StoreTooSlow("slow"))) == "done"


async def test_people_hear_of_it_at_once_and_now_and_then_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    errors = Store(*[AWAY] * 100, REFUSED)
    waiting = Patience(None, lambda: 7)
    waiting.reached = True

    async def call() -> str:
        now[0] += 1
        return await errors()

    with capture_logs() as logs:
        await waiting(call)
    told = [entry for entry in logs if entry["event"].startswith("store.")]
    assert [(entry["event"], entry["log_level"]) for entry in told] == [
        *[("store.waiting", "warning")] * 4,
        ("store.waiting", "error"),
        ("store.back", "info"),
    ]
    assert [entry["for_s"] for entry in told[:-1]] == [0.0, 30.0, 60.0, 90.0, 100.0]
    assert told[0]["queue"] == 7
    assert told[0]["hint"] == "is it running?"
    assert told[-1]["after_s"] == 101.0
