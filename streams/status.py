"""What holds the flow back right now: groups, their lag, what was decided for each partition, and who asked."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from schemas.errors import BadRecord
from schemas.feedback import Feedback, Level, decode_feedback
from schemas.rate import RateAdjustment, decode_rate
from streams.broker import cluster_now
from streams.groups import Group, GroupMember, Groups, Place, lag_of
from streams.reading import TopicReader
from streams.settings import Settings
from streams.topics import Topics

#: Records of each partition that are looked at: the feedback of minutes, and a long series of decisions.
LAST = 200
#: A decision follows feedback at once; where it has not after so long, it is not going to.
_SETTLE_S = 3.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hold:
    """What was decided last about a partition."""

    scale: float
    reason: Level
    since: float | None
    """When the partition was first held back; None while it is not."""
    coordinator_id: str | None
    at: float
    """When it was decided."""


@dataclass(frozen=True, slots=True)
class TickPartition:
    """A partition of a tick topic."""

    topic: str
    partition: int
    lag: int
    owner: GroupMember | None
    hold: Hold | None
    """None where nothing was decided that is still known: it is open."""
    note: str = ""
    """What people should know of it, for what is shown may not be what is."""


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A store worker that speaks, and its last word."""

    partitions: tuple[int, ...]
    said: Feedback
    age_s: float

    @property
    def dropped(self) -> int:
        """How many bars it has dropped, where it says so."""
        return int(getattr(self.said, "dropped", 0))


@dataclass(frozen=True, slots=True)
class Status:
    """Everything at one moment."""

    broker: str
    at: float
    bars: Group
    store: Group
    ticks: list[TickPartition] = field(default_factory=list)
    coordinators: list[Coordinator] = field(default_factory=list)
    bars_lag: dict[int, int] = field(default_factory=dict)
    """What the store group has not committed of the bars topic, by partition."""
    problems: list[str] = field(default_factory=list)
    """What is not as it should be, for people."""


def look(settings: Settings, clock: Callable[[], float] = time.time) -> Status:
    """Ask the broker. Raises `BrokerError` where it does not answer; what is missing is a problem, no error."""
    topics = Topics(settings.topic_prefix)
    counts = {name: len(topic.partitions) for name, topic in cluster_now(settings).topics.items()}
    tick_names = [tick.topic for tick in settings.ticks if tick.topic in counts]
    feedback = _latest(settings, topics.feedback, counts, decode_feedback)
    rates = _latest(settings, topics.rate, counts, decode_rate)
    groups = Groups(settings)
    bars, store = groups.group(f"{settings.group}-bars"), groups.group(f"{settings.group}-store")
    places = [(name, partition) for name in tick_names for partition in range(counts[name])]
    lags = groups.lag(bars.name, places)
    bar_places = [(topics.bars, partition) for partition in range(counts.get(topics.bars, 0))]
    behind = {partition: lag for (_, partition), lag in groups.lag(store.name, bar_places).items()}
    bars_lag = _without_marks(settings, topics.bars, behind)

    now = clock()
    ttl_s = settings.feedback_ttl / 1e9
    live = [event for event in feedback if event.ts >= now - ttl_s]
    mine = [rate for rate in rates if rate.provider == settings.group]
    ticks = []
    for place in places:
        hold = held(mine, place[1])
        note = _note(
            bars,
            place,
            hold,
            asked=asked(live, place[1], hold, store.name),
            settled=hold is None or now - hold.at > ttl_s + _SETTLE_S,
        )
        ticks.append(TickPartition(*place, lags[place], bars.owner(place), hold, note))
    status = Status(settings.broker, now, bars, store, ticks, coordinators(live, now, settings), bars_lag)
    wanted = [*(tick.topic for tick in settings.ticks), topics.bars, topics.feedback, topics.rate]
    status.problems.extend(_problems(status, [name for name in wanted if name not in counts], feedback))
    return status


def held(rates: Iterable[RateAdjustment], partition: int) -> Hold | None:
    """What was decided last about a partition; the decisions in the order in which they were made."""
    hold: Hold | None = None
    since: float | None = None
    for rate in rates:
        if rate.partition not in (None, partition):
            continue
        if rate.scale >= 1:
            since = None
        else:
            since = rate.since if rate.since is not None else since if since is not None else rate.ts
        hold = Hold(rate.scale, rate.reason, since, rate.coordinator_id, rate.ts)
    return hold


def asked(live: Iterable[Feedback], partition: int, hold: Hold | None, store_group: str) -> bool:
    """Whether anybody still asks for less: a store that speaks, or the bars worker itself, for the store's lag."""
    if hold is not None and hold.coordinator_id == lag_of(store_group):
        return True
    return any(event.partition == partition and event.level is not Level.ok for event in live)


def coordinators(live: Iterable[Feedback], now: float, settings: Settings) -> list[Coordinator]:
    """The store workers that these are of, by their names, each with what it said last."""
    latest: defaultdict[str, dict[int, Feedback]] = defaultdict(dict)
    for event in live:
        of_one = latest[event.coordinator_id]
        before = of_one.get(event.partition)
        if before is None or (event.epoch, event.ts) >= (before.epoch, before.ts):
            of_one[event.partition] = event
    found = []
    for _, by_partition in sorted(latest.items()):
        said = max(by_partition.values(), key=lambda event: (event.epoch, event.ts))
        # All partitions are spoken of at each heartbeat: of which it is silent since, that one is lost.
        since = said.ts - settings.heartbeat / 2e9
        owned = sorted(p for p, event in by_partition.items() if event.ts >= since)
        found.append(Coordinator(tuple(owned), said, max(0.0, now - said.ts)))
    return found


def _note(group: Group, place: Place, hold: Hold | None, *, asked: bool, settled: bool) -> str:
    if group.rebalancing:
        return "the group is rebalancing"
    if group.owner(place) is None:
        return "no worker owns it"
    if hold is not None and hold.scale < 1 and not asked and settled:
        return "no live store worker asks for this"
    return ""


def _problems(status: Status, missing: Sequence[str], feedback: Sequence[Feedback]) -> Iterable[str]:
    for name in missing:
        yield f"topic {name} does not exist: `tidegate topics plan` shows what is missing"
    if not status.bars.members:
        yield f"group {status.bars.name} has no members: no bars are made"
    if not status.store.members:
        yield f"group {status.store.name} has no members: no bars are stored"
    elif not status.coordinators:
        last = max(feedback, key=lambda event: event.ts, default=None)
        heard = "" if last is None else f", {last.coordinator_id} for {status.at - last.ts:,.0f} s"
        yield f"no store worker speaks on the feedback topic{heard}"


def _without_marks(settings: Settings, topic: str, lags: dict[int, int]) -> dict[int, int]:
    """The same, with records counted where there are few: the end of a transaction is an offset, and no bar.

    A store that has read everything would be behind by one otherwise, for good.
    """
    few = {partition: lag for partition, lag in lags.items() if 0 < lag <= LAST}
    if not few:
        return lags
    found = lags | dict.fromkeys(few, 0)
    with TopicReader(settings, topic) as reader:
        for partition, lag in few.items():
            found[partition] = sum(1 for _ in reader.read([partition], last=lag))
    return found


def _latest(
    settings: Settings, topic: str, counts: dict[str, int], decode: Callable[[bytes | None], T]
) -> list[T]:
    """The last records of each partition that can be read, each partition in its order."""
    found: list[T] = []
    if topic in counts:
        with TopicReader(settings, topic) as reader:
            for message in reader.read(reader.partitions, last=LAST):
                try:
                    found.append(decode(message.value()))
                except BadRecord:  # workers and `tidegate tail` tell of these
                    continue
    return found
