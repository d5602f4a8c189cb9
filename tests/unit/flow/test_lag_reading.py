"""What the watch over lag makes of the answers of a broker: the oldest record, none, or a refusal."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, TopicPartition

from schemas.errors import BrokerError
from streams.flow import lag
from streams.flow.throttle import Throttle
from streams.settings import load_settings

BARS = ("md.bars.v1", 0)


class Message:
    """A record, or an event of librdkafka."""

    def __init__(self, code: int | None = None) -> None:
        self._error = None if code is None else KafkaError(code)

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return BARS[0]

    def partition(self) -> int:
        return BARS[1]

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"value"


class Consumer:
    """Gives one message, once."""

    given: Message
    asked = 0

    def __init__(self, config: dict[str, Any]) -> None:
        assert config["enable.partition.eof"]

    def assign(self, tps: list[TopicPartition]) -> None: ...

    def pause(self, tps: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        type(self).asked += 1
        return [self.given]


def oldest(monkeypatch: pytest.MonkeyPatch, given: Message) -> Any:
    monkeypatch.setattr(lag, "Consumer", Consumer)
    monkeypatch.setattr(Consumer, "given", given, raising=False)
    monkeypatch.setattr(Consumer, "asked", 0)
    watch = lag.LagWatch(load_settings(None), cast("Throttle", None), lambda place: -1)
    return watch._oldest({BARS: 5})


def test_the_oldest_record_has_an_age_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert oldest(monkeypatch, Message()) == {BARS: (1_700_000_000_000, 8)}


def test_where_only_the_end_of_a_transaction_is_left_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert oldest(monkeypatch, Message(KafkaError._PARTITION_EOF)) == {BARS: (None, 0)}
    assert Consumer.asked == 1


def test_who_may_not_read_the_bars_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerError, match=r"md\.bars\.v1\[0\]: cannot be read") as caught:
        oldest(monkeypatch, Message(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert "may the user read" in caught.value.hint
