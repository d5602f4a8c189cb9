"""What operators have paused, from the log of their actions. Pure: it reads no topic."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.control import Action, Control


@dataclass(frozen=True, slots=True)
class _Order:
    """The last word about what one key names."""

    control: Control
    offset: int


class Orders:
    """The last word about a partition counts, whether it names the partition, its worker or the whole role.

    A function of the set of records: the topic may be compacted, and read again.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, int | None, str | None], _Order] = {}

    def take(self, control: Control, offset: int) -> bool:
        """Take an action at its place in the log; False where that changes nothing."""
        key = control.role, control.partition, control.worker
        before = self._last.get(key)
        if control.action is Action.reload or (before is not None and before.offset >= offset):
            return False
        # Replaced as a whole: others read it in their threads.
        self._last = {**self._last, key: _Order(control, offset)}
        return True

    def pause_of(self, role: str, partition: int, worker: str) -> Control | None:
        """The pause that holds for a partition of a role at a worker; None where it is not paused."""
        found = [
            order
            for key in ((role, p, w) for p in (None, partition) for w in (None, worker))
            if (order := self._last.get(key)) is not None
        ]
        last = max(found, key=lambda order: order.offset, default=None)
        return last.control if last is not None and last.control.action is Action.pause else None

    def pauses(self) -> list[Control]:
        """Every pause that holds for something, oldest first: without those that a later word has ended."""
        held = []
        for (role, partition, worker), order in sorted(self._last.items(), key=lambda item: item[1].offset):
            if order.control.action is not Action.pause:
                continue
            wider = [
                self._last.get((role, p, w))
                for p in {None, partition}
                for w in {None, worker}
                if (p, w) != (partition, worker)
            ]
            if not any(other is not None and other.offset > order.offset for other in wider):
                held.append(order.control)
        return held
