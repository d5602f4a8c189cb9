"""One run: load, faults, recovery, and the comparison at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from chaos.cluster import Cluster
from chaos.faults import Fault, fault_of
from chaos.flawed import SHIFT_NS, FlawedLoad
from chaos.judge import Judge, Outcome
from chaos.readings import PARTITIONS, StoreView
from chaos.schedule import UNTIL_RECOVERED, Step
from chaos.slots import Exit, Slot
from chaos.verdict import Moment

RECOVERY_S = 120.0
"""Bars that do not flow for longer than this after a fault will not."""
AHEAD_S = 2.0
"""How far the others get ahead of a worker that is frozen until they have taken over."""
HARM_S = 2.0
"""How long who has woken up, or has got its connections back, may do harm before the load ends."""


@dataclass(slots=True)
class _Active:
    fault: Fault
    moment: Moment
    heal_at: float
    healing: Future[None] | None = None


class Run:
    """Drives a schedule against a cluster under load."""

    def __init__(
        self,
        cluster: Cluster,
        load: FlawedLoad,
        steps: Sequence[Step],
        *,
        say: Callable[[str], None] = lambda line: None,
        check: Callable[[], None] = lambda: None,
        settle_s: float = 120.0,
        quiet_s: float = 90.0,
    ) -> None:
        self.outcome = Outcome()
        self._cluster = cluster
        self._load = load
        self._steps = steps
        self._say = say
        #: Called often, where nothing is half done: raises when the run is to end.
        self._check = check
        #: How long bars may take to be right after the load, and how long it may seem that they never will.
        self._settle_s, self._quiet_s = settle_s, quiet_s
        self._store = StoreView(cluster.postgres.dsn)
        self._ticks = f"{cluster.prefix}ticks.v1"
        self._active: list[_Active] = []
        self._waiting: list[Moment] = []
        self._bars = 0
        self._looked_at = 0.0

    def go(self) -> Outcome:
        """The whole run. What is wrong is in the outcome; only a harness that fails raises."""
        began = time.monotonic()
        outcome = self.outcome
        self._cluster.start_workers()
        with self._load, ThreadPoolExecutor(4) as self._healers:
            if self._started():
                for step in self._steps:
                    if not self._do(step):
                        break
            self._heal_all()
            self._until_recovered()
            self._for(HARM_S)
            self._load.stop()
        outcome.sent, outcome.garbage = sum(self._load.sent.values()), self._load.garbage
        Judge(self._cluster, outcome, self._load.sent, self._store, self._supervise).judge(
            self._settle_s, self._quiet_s
        )
        outcome.starts = sum(slot.starts for slot in self._cluster.slots)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _started(self) -> bool:
        """Wait for bars, and until every worker has its share."""
        self._waiting.append(Moment("the start", "start", time.time(), ended=time.time()))
        if not self._until_recovered():
            return False
        deadline = time.monotonic() + RECOVERY_S
        while not self._cluster.balanced():
            self._advance()
            if time.monotonic() > deadline:
                self.outcome.verdict.complaints.append(
                    f"not every worker has a share after {RECOVERY_S:.0f} s"
                )
                return False
        return True

    def _do(self, step: Step) -> bool:
        if not step.hurry:
            self._heal_all()
            if not self._until_recovered():
                return False
        self._for(step.gap_s)
        fault = fault_of(step, self._cluster)
        worker = fault.slot.name if step.kind.of_one_worker else ""
        moment = Moment(str(step), step.kind.name, time.time(), worker)
        self.outcome.timeline.append(moment)
        fault.apply()
        self._active.append(_Active(fault, moment, time.monotonic() + min(step.lasts_s, RECOVERY_S)))
        self._waiting.append(moment)
        worst = max(self.outcome.recoveries(), default=0.0)
        self._say(
            f"fault {step.number} of {len(self._steps)}: {step.kind.name}, "
            f"{sum(self._load.sent.values()):,} ticks sent, {self._bars:,} bars stored, "
            f"worst recovery {worst:.1f} s"
        )
        return True

    def _for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._advance()

    def _heal_all(self) -> None:
        while self._active:
            self._advance()

    def _until_recovered(self) -> bool:
        """False where bars will not flow again."""
        deadline = time.monotonic() + RECOVERY_S
        while self._waiting:
            self._advance()
            if time.monotonic() > deadline:
                lost = ", ".join(moment.what for moment in self._waiting)
                self.outcome.verdict.complaints.append(f"no bars for {RECOVERY_S:.0f} s after {lost}")
                self._waiting.clear()
                return False
        return True

    def _advance(self) -> None:
        """A moment of supervision: exits, faults that are over, and how far the store is."""
        time.sleep(0.05)
        if self._load.error is not None:
            raise self._load.error
        self._supervise()
        for active in list(self._active):
            self._mend(active)
        if time.monotonic() - self._looked_at > 0.4:
            self._looked_at = time.monotonic()
            self._look_at_store()

    def _supervise(self) -> None:
        """Start anew what has exited."""
        self._check()
        for slot, exited in self._cluster.look():
            self._exited(slot, exited)

    def _mend(self, active: _Active) -> None:
        """End a fault that is over; elsewhere, for a broker takes its time to start."""
        moment, over = active.moment, active.heal_at <= time.monotonic()
        if active.fault.step.lasts_s == UNTIL_RECOVERED and moment.recovered_s is not None:
            over |= time.time() > moment.began + moment.recovered_s + AHEAD_S
        if active.healing is None and over:
            active.healing = self._healers.submit(active.fault.heal)
        if active.healing is not None and active.healing.done():
            active.healing.result()
            active.moment.ended = time.time()
            self._active.remove(active)

    def _look_at_store(self) -> None:
        progress = self._store.progress(self._ticks)
        if progress is None:
            return
        self._bars = progress.bars
        oldest = min(progress.newest_ns) if len(progress.newest_ns) == PARTITIONS else 0
        for moment in list(self._waiting):
            if oldest >= moment.began * 1e9 - SHIFT_NS:
                moment.recovered_s = time.time() - moment.began
                self._waiting.remove(moment)

    def _exited(self, slot: Slot, exited: Exit) -> None:
        self.outcome.exits.append(exited)
        if exited.meant and not exited.crashed:
            return
        reasons = [m.what for m in self.outcome.timeline if m.may_explain(slot.name, exited.at)]
        if exited.crashed or not reasons:
            self.outcome.unexplained.append(exited)
        why = (
            "it crashed"
            if exited.crashed
            else f"maybe because of {reasons[-1]}"
            if reasons
            else "for no reason"
        )
        self._say(f"{slot.name} exited with status {exited.status}, {why}:\n{exited.last_lines}")
