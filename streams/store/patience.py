"""Trying again what the database cannot do now, and saying so."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import stamina
import structlog

from schemas.errors import StoreError, StoreRefused

T = TypeVar("T")

WAIT_MAX_S = 10.0
TELL_S = 30.0
"""How often it is said again that the database is away."""

log = structlog.get_logger(__name__)


class Patience:
    """Calls the store until it succeeds, for `limit_s` at most where there is a limit.

    What passes by itself is tried again with jittered backoff. What people must mend is an error until
    the store was `reached` once: the URL, the rights and the table were right then, so somebody has changed
    them, and can change them back while the worker waits.
    """

    def __init__(self, limit_s: float | None, queue: Callable[[], int]) -> None:
        self.limit_s = limit_s
        self.reached = False
        self.error: StoreError | None = None
        """Why the last call failed; None when it succeeded."""
        self.retries = 0
        """Attempts that failed and were made, or are going to be made, again."""
        self.last_error_at: datetime | None = None
        self._queue = queue
        self._since = 0.0
        self._told = 0.0

    async def __call__(
        self, call: Callable[[], Awaitable[T]], *, unless: tuple[type[StoreError], ...] = ()
    ) -> T:
        """The result of `call`; what is in `unless` is raised at once."""

        def worth_waiting(exc: Exception) -> bool:
            if not isinstance(exc, StoreError) or isinstance(exc, unless):
                return False
            return exc.retriable or (self.reached and isinstance(exc, StoreRefused))

        async for attempt in stamina.retry_context(
            on=worth_waiting, attempts=None, timeout=self.limit_s, wait_max=WAIT_MAX_S
        ):
            with attempt:
                try:
                    result = await call()
                except StoreError as exc:
                    self.last_error_at = datetime.now(UTC)
                    if worth_waiting(exc):
                        self.failed(exc)
                    raise
        self._succeeded()
        return result

    def failed(self, error: StoreError) -> None:
        """Take note, and tell people: at first, when the reason changes, and now and then."""
        self.retries += 1
        self.last_error_at = datetime.now(UTC)
        now = time.monotonic()
        before, self.error = self.error, error
        if before is None:
            self._since = now
        elif str(before) == str(error) and now - self._told < TELL_S:
            return
        self._told = now
        tell = log.warning if error.retriable else log.error
        tell(
            "store.waiting",
            error=str(error),
            hint=error.hint or None,
            for_s=round(now - self._since, 1),
            queue=self._queue(),
        )

    def _succeeded(self) -> None:
        self.reached = True
        if self.error is not None:
            self.error = None
            log.info("store.back", after_s=round(time.monotonic() - self._since, 1), queue=self._queue())
