"""The state topic as a whole, for people who look at it or start a topic afresh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from schemas.errors import StateError
from streams.bars.restore import position_of
from streams.bars.rows import Position
from streams.broker import confluent_config
from streams.groups import Groups
from streams.pair import FencedPair
from streams.reading import TopicReader
from streams.settings import Settings
from streams.topics import Topics

_envelope = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])


@dataclass(slots=True)
class PartitionState:
    """What the state topic holds of one partition of a tick topic."""

    topic: str
    partition: int
    rows: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """Key and value by the row's name."""

    @property
    def position(self) -> int | None:
        """The offset of the last record that is in the state; None where no row says so."""
        told = self._told
        return None if told is None else told.offset

    @property
    def instruments(self) -> int | None:
        """How many instruments the state knows; None where no row says so."""
        told = self._told
        return None if told is None else told.instruments

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        return sum(len(key) + len(value) for key, value in self.rows.values())

    @property
    def _told(self) -> Position | None:
        try:
            return position_of({name: value for name, (_, value) in self.rows.items()}, "")
        except StateError:
            return None

    @property
    def versions(self) -> list[int | None]:
        """The formats of the rows; None among them where one cannot be read."""
        found = {_version(value) for _, value in self.rows.values()}
        return sorted(found, key=lambda version: -1 if version is None else version)


def read_state(
    reader: TopicReader,
    partitions: Iterable[int] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PartitionState]:
    """What the topic holds, by tick topic and partition; what has no row left is left out."""
    states: dict[tuple[str, int], PartitionState] = {}
    chosen = reader.partitions if partitions is None else partitions
    for message in reader.read(chosen, on_progress=on_progress):
        key, value, partition = message.key() or b"", message.value(), message.partition()
        topic, _, name = key.decode("utf-8", "replace").partition("|")
        state = states.setdefault((topic, partition), PartitionState(topic, partition))
        if value is None:
            state.rows.pop(name, None)
        else:
            state.rows[name] = key, value
    return [states[at] for at in sorted(states) if states[at].rows]


async def wipe(settings: Settings, topic: str) -> dict[int, int]:
    """Delete what the state topic holds of a tick topic; gives how many rows that were, by partition.

    Each partition is wiped in a transaction of its owner's: whoever owned it without knowing can write
    no more. May be repeated. Raises `BrokerError`; `LaneLost` where a worker took a partition meanwhile.
    """
    topics = Topics(settings.topic_prefix)
    deleted: defaultdict[int, int] = defaultdict(int)
    with TopicReader(settings, topics.state) as reader:
        for partition in reader.partitions:
            owner = FencedPair(confluent_config(settings), topics.owners(partition), settings.transaction_s)
            try:
                await owner.open()
                for state in read_state(reader, [partition]):
                    if state.topic != topic:
                        continue
                    for key, _ in state.rows.values():
                        while not owner.produce(topics.state, None, key=key, partition=partition):
                            await owner.room()
                    deleted[partition] = len(state.rows)
                await owner.seal(())
                await owner.commit()
            finally:
                await owner.close()
    return dict(deleted)


def members(settings: Settings, group: str) -> list[str]:
    """Who is in a consumer group right now, as CLIENT at HOST. Raises `BrokerError`."""
    return sorted(f"{member.id} at {member.host}" for member in Groups(settings).group(group).members)


def _version(value: bytes) -> int | None:
    try:
        return _envelope.decode(value)[0]
    except msgspec.DecodeError:
        return None
