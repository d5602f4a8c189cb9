"""What a dead letter was, on the record that takes it back to its topic.

`tidegate dlq replay` produces the original key and value again, with the header `tidegate-replay`, which holds
this as JSON. It says which of the record's trades is to count, for the others have counted already, and it
names that trade for good: however often a dead letter is replayed, its tick counts once.
"""

from collections.abc import Iterable, Sequence

import msgspec

from schemas.dead_letter import HEADER, DeadLetter, place
from schemas.wire import Natural, decode

REPLAY_HEADER = "tidegate-replay"

#: What the identities of replayed trades begin with, among the ids of trades.
REPLAYED = "replay:"

Headers = Sequence[tuple[str, bytes]]


class Replay(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Where the refused record was first, and which of its trades was refused; None: it was refused whole."""

    topic: str
    partition: Natural
    offset: Natural
    index: Natural | None = None

    @classmethod
    def of(cls, letter: DeadLetter) -> "Replay":
        """What replays this dead letter."""
        index = letter.index if letter.reason.is_of_one_trade else None
        return cls(letter.topic, letter.partition, letter.offset, index)

    def identity(self, index: int) -> str:
        """What one of the trades is known by, whether it has an id or not."""
        return f"{REPLAYED}{self.topic}[{self.partition}]@{self.offset}#{index}"


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Replay)


def encode_replay(replay: Replay) -> bytes:
    """The value of the header."""
    return _encode(replay)


def find_replay(headers: Iterable[tuple[str, bytes]]) -> Replay | None:
    """What the record replays, if it does. Raises BadRecord where its header cannot be read."""
    found = [value for name, value in headers if name == REPLAY_HEADER]
    return decode(_decoder, found[-1], f"header {REPLAY_HEADER}") if found else None


def tell_origin(letter: DeadLetter, replay: Replay) -> None:
    """Let the dead letter of a replay tell of the original, however often it comes back."""
    letter.replayed = place(letter.topic, letter.partition, letter.offset)
    letter.topic, letter.partition, letter.offset = replay.topic, replay.partition, replay.offset
    if replay.index is not None:
        letter.index = replay.index


def headers_of_replay(headers: Headers, replay: Replay) -> list[tuple[str, bytes]]:
    """The headers to replay a dead letter with: those of the original record, and where that was."""
    return [*_without(headers, HEADER), (REPLAY_HEADER, encode_replay(replay))]


def headers_of_dead_letter(headers: Headers, letter: bytes) -> list[tuple[str, bytes]]:
    """The headers of a dead letter: those of the refused record. That it was a replay stands in the letter."""
    return [*_without(headers, REPLAY_HEADER), (HEADER, letter)]


def _without(headers: Headers, name: str) -> Headers:
    """Less the last of this name: what the original had of its own stays."""
    for at in reversed(range(len(headers))):
        if headers[at][0] == name:
            return [*headers[:at], *headers[at + 1 :]]
    return headers
