from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from schemas.errors import ProduceError
from streams.cli import publishing
from streams.cli.account import TELL
from streams.cli.publishing import Publisher
from streams.settings import Settings

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
GONE = KafkaError._MSG_TIMED_OUT


class Broker:
    """Stands in for the producer: refuses the values that a test names."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.answers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return 0

    async def send(
        self, topic: str, value: bytes, *, on_error: Callable[[KafkaError], None], **kwargs: Any
    ) -> None:
        if value in self.answers:
            on_error(KafkaError(self.answers[value]))

    async def barrier(self) -> None:
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    monkeypatch.setattr(publishing, "BarrierProducer", Broker)
    return Publisher(Settings(), "t", 1 << 20)


def answer(publisher: Publisher, answers: dict[bytes, int]) -> None:
    publisher._producer.answers = answers  # type: ignore[attr-defined]


async def test_a_refused_record_is_told_and_counted_and_the_others_go_on(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(publisher, {b"2": TOO_LARGE})

    for value in (b"1", b"2", b"3"):
        await publisher.publish(value, b"k", f"a.csv:{value.decode()}")
    await publisher.settle()

    assert (publisher.sent, publisher.published, publisher.refused) == (3, 2, 1)
    assert capsys.readouterr().err.startswith("refused a.csv:2: by the broker: ")


async def test_only_the_first_refusals_are_told_one_by_one(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [str(i).encode() for i in range(50)]
    answer(publisher, dict.fromkeys(values, TOO_LARGE))

    for value in values:
        await publisher.publish(value, b"k", "a.csv")
    await publisher.settle()

    assert publisher.refused == 50
    assert len(capsys.readouterr().err.splitlines()) == TELL + 1


async def test_a_broker_that_goes_away_ends_it_and_says_from_where_on(publisher: Publisher) -> None:
    answer(publisher, {b"2": GONE, b"3": GONE})
    for value in (b"1", b"2"):
        await publisher.publish(value, b"k", f"a.csv:{value.decode()}")

    with pytest.raises(ProduceError, match=r"t: not delivered, from a\.csv:2 on: "):
        await publisher.publish(b"3", b"k", "a.csv:3")
    with pytest.raises(ProduceError):
        await publisher.settle()

    assert (publisher.published, publisher.refused) == (1, 0)
