"""Consumer groups as the broker sees them: who is in one, which partitions they own, and how far they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import BrokerError
from streams.broker import confluent_config
from streams.settings import Settings

_REQUEST_S = 10.0
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a consumer group, and the topic partitions that it owns."""

    id: str
    host: str
    owns: frozenset[Place] = frozenset()

    @property
    def name(self) -> str:
        """For people: the host, and enough of the id to tell processes on one host apart."""
        return f"{self.host}/{self.id[-6:]}"


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group at one moment. While it is rebalancing nobody owns anything."""

    name: str
    members: tuple[GroupMember, ...] = ()
    rebalancing: bool = False

    def owner(self, place: Place) -> GroupMember | None:
        """Who owns a topic partition."""
        return next((member for member in self.members if place in member.owns), None)


def lag_of(group: str) -> str:
    """Who asks for less where this group leaves too much unread: the worker that obeys, itself, and on no topic."""
    return f"lag of {group}"


class Groups:
    """Asks the broker. Raises `BrokerError` where it does not answer, or does not allow to look."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(confluent_config(settings))
        self._onlookers: dict[str, Consumer] = {}

    def group(self, name: str) -> Group:
        """A group; without members where there is none of that name."""
        try:
            found = self._admin.describe_consumer_groups([name], request_timeout=_REQUEST_S)[name]
            described = found.result(_REQUEST_S)
        except (KafkaException, TimeoutError) as exc:
            if _code(exc) == KafkaError.GROUP_ID_NOT_FOUND:
                return Group(name)
            raise _refused(f"group {name} cannot be described", exc, "describe groups") from None
        members = tuple(
            GroupMember(
                member.member_id,
                member.host.lstrip("/"),
                frozenset((tp.topic, tp.partition) for tp in member.assignment.topic_partitions),
            )
            for member in described.members
        )
        return Group(name, members, rebalancing=described.state.name.endswith("REBALANCING"))

    def lag(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        """How many offsets of each partition the group has not committed; all where it has committed none."""
        committed = self.committed(group, places := list(places))
        # What was deleted cannot be read any more, and no lag either.
        return {
            place: max(0, end - max(first, committed.get(place, -1)))
            for place, (first, end) in self.bounds(places).items()
        }

    def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """The first offset that each partition holds, and the one after the last."""
        tps = [TopicPartition(topic, partition) for topic, partition in places]
        if not tps:
            return {}
        first, end = self._offsets(tps, OffsetSpec.earliest()), self._offsets(tps, OffsetSpec.latest())
        return {place: (first[place], end[place]) for place in end}

    def committed(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        """What the group has committed, of the partitions of which it has committed anything."""
        tps = [TopicPartition(topic, partition) for topic, partition in places]
        if not tps:
            return {}
        try:
            found = self._onlooker(group).committed(tps, _REQUEST_S)
        except KafkaException as exc:
            if _code(exc) != KafkaError.GROUP_ID_NOT_FOUND:
                raise _refused(
                    f"the offsets of group {group} cannot be read", exc, "describe groups"
                ) from None
            return {}
        return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def _onlooker(self, group: str) -> Consumer:
        """A consumer that is called as the group is, and never joins it.

        An admin client would be asked simply, and librdkafka ends the process where the connection to the
        group's coordinator breaks in the midst of the question (its issue 4605): a worker that asks every few
        seconds dies of a broker that restarts.
        """
        if group not in self._onlookers:
            self._onlookers[group] = Consumer(
                {
                    **confluent_config(self._settings),
                    "group.id": group,
                    "enable.auto.commit": False,
                    "isolation.level": "read_uncommitted",  # no waiting for offsets of an open transaction
                }
            )
        return self._onlookers[group]

    def _offsets(self, tps: list[TopicPartition], which: OffsetSpec) -> dict[Place, int]:
        futures = self._admin.list_offsets(dict.fromkeys(tps, which), request_timeout=_REQUEST_S)
        found = {}
        for tp, future in futures.items():
            try:
                found[tp.topic, tp.partition] = future.result(_REQUEST_S).offset
            except (KafkaException, TimeoutError) as exc:
                what = f"{tp.topic}[{tp.partition}]: its offsets cannot be read"
                raise _refused(what, exc, "describe topics") from None
        return found


def _code(exc: Exception) -> int | None:
    error = exc.args[0] if exc.args else None
    return error.code() if isinstance(error, KafkaError) else None


def _refused(what: str, exc: Exception, right: str) -> BrokerError:
    error = exc.args[0] if exc.args else None
    said = error.str() if isinstance(error, KafkaError) else "no answer"
    return BrokerError(f"{what}: {said}", hint=f"is the broker in health? may the user {right}?")
