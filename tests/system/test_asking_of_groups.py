"""How far a consumer group is: asked every few seconds while a worker lives, through restarts of its broker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from streams.groups import Groups
from streams.settings import Settings
from support.kafka import Kafka, TestTopics
from support.wait import until
from support.workers import environment

ASK = """
import sys
from schemas.errors import BrokerError
from streams.groups import Groups
from streams.settings import Settings

groups = Groups(Settings(broker=sys.argv[1]))
while True:
    try:
        print("known", groups.committed("some-group", [(sys.argv[2], p) for p in range(4)]), flush=True)
    except BrokerError as error:
        print("unknown", error, flush=True)
"""


def test_who_asks_survives_a_broker_that_restarts_and_is_answered_again(
    own_kafka: Kafka, tmp_path: Path
) -> None:
    """librdkafka's admin client aborts the process here, of which no `except` hears: hence a process of its own."""
    topic = TestTopics(own_kafka.address)()
    said = tmp_path / "said"
    with said.open("wb") as output:
        asker = subprocess.Popen(
            [sys.executable, "-c", ASK, own_kafka.address, topic],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
        )

    def answered(times: int = 1) -> bool:
        assert asker.poll() is None, said.read_text()
        return said.read_text().count("known {}") >= times

    try:
        until(answered, 20, "it is answered")
        own_kafka.kill()
        before = said.read_text().count("known {}")
        own_kafka.resume()
        until(lambda: answered(before + 3), 40, "it is answered again")
    finally:
        asker.kill()
        asker.wait()


def test_a_group_that_has_committed_nothing_and_no_places_are_no_errors(
    kafka: str, topics: TestTopics
) -> None:
    groups = Groups(Settings(broker=kafka))
    assert groups.committed(f"{topics.prefix}nobody", [(topics(), 0)]) == {}
    assert groups.committed(f"{topics.prefix}nobody", []) == {}
