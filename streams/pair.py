"""What a lane publishes through: two producers that take turns, for one that commits takes nothing.

Records go to one of them until a line is drawn (`seal`); while its transaction is being committed, what comes
next goes to the other one. To readers it is one sequence of transactions:

- Nothing of a transaction is produced before all that was produced in the one before it is acknowledged, but for
  the records at its end. So the order of bars in their partition is that in which they were made.
- None is committed before the one before it. The records at the end are the state: so states are in order, too,
  and each holds what its own and all earlier transactions published, and no more.
- A transaction that fails takes the whole lane with it, what the other producer has begun included.

The first transaction after `open` is always one of the first producer's, and that one is opened first. So of two
workers that open a partition at the same time and get a producer each, only who has the first one can commit
anything, and the other can have committed nothing since that one read the state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from streams.fenced import TRANSACTION_TIMEOUT_S, FencedProducer
from streams.outlet import Out, send

#: How long until it is asked again whether all is acknowledged: at first, and where the broker is away.
_FIRST_WAIT_S, _LAST_WAIT_S = 0.001, 0.05


class FencedPair:
    """An `Outlet` in transactions, which only the newest owner of both ids can commit. Used from the event loop."""

    def __init__(
        self,
        config: Mapping[str, Any],
        transactional_ids: tuple[str, str],
        timeout_s: float = TRANSACTION_TIMEOUT_S,
    ) -> None:
        first, second = transactional_ids
        self._taking = self._first = FencedProducer(config, first, timeout_s)
        self._resting = self._second = FencedProducer(config, second, timeout_s)
        self._sealed: FencedProducer | None = None
        self._last: deque[Out] = deque()

    async def open(self) -> None:
        """Become the owner. Raises as `FencedProducer.open`."""
        await self._first.open()  # in this order: see above
        await self._second.open()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> bool:
        """Add a record to the open transaction; False where there is no room now (await `room`, try again)."""
        if self._taking is self._sealed:
            return False  # what is before the line comes first
        return self._taking.produce(topic, value, key=key, partition=partition, headers=headers)

    async def room(self) -> None:
        """Wait a moment."""
        if self._taking is self._sealed:
            await self._pass_on()
        else:
            await self._taking.room()

    async def seal(self, last: Iterable[Out]) -> None:
        """As `Outlet.seal`, where what was sealed before is committed. Raises as `FencedProducer.commit`."""
        self._last.extend(last)
        if not self._taking.begun and not self._last:
            return
        self._sealed = self._taking
        await self._pass_on()

    async def _pass_on(self) -> None:
        wait_s = _FIRST_WAIT_S
        while self._taking is self._sealed:  # who was cancelled leaves it to whoever comes next
            if self._taking.in_flight():
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LAST_WAIT_S)
            else:
                self._taking, self._resting = self._resting, self._taking

    async def commit(self) -> None:
        """Make what is before the line durable and, for readers of committed records, visible at once.

        Raises as `FencedProducer.commit`. One call at a time; where one was cancelled, the next takes it up.
        """
        if (sealed := self._sealed) is not None:
            await self._pass_on()
            await send(sealed, self._last)
            await sealed.commit()
            self._sealed = None

    async def close(self) -> None:
        """Take back what is not committed, as far as the broker can be reached, and stop. Idempotent."""
        await asyncio.gather(self._first.close(), self._second.close())
