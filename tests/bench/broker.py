"""The broker under the benchmark."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from support.containers import HOST, free_port, why_no_docker
from support.kafka import Kafka


class Broker(NamedTuple):
    """Where it is, and what it is."""

    address: str
    description: str


#: Compiled as it would be in service: the brokers of tests are not.
HEAP = {"KAFKA_HEAP_OPTS": "-Xms512m -Xmx1g"}


class HostKafka(Kafka):
    """Kafka in the host's network, where no proxy copies every byte. Linux only."""

    def __init__(self) -> None:
        super().__init__(**HEAP)
        controller = free_port()
        self.ports.clear()
        self.with_kwargs(mem_limit="4g", network_mode="host")
        self.with_envs(
            KAFKA_LISTENERS=f"EXTERNAL://{self.address},CONTROLLER://{HOST}:{controller}",
            KAFKA_CONTROLLER_QUORUM_VOTERS=f"1@{HOST}:{controller}",
        )


@contextmanager
def bench_broker() -> Iterator[Broker]:
    """The broker that TIDEGATE_TEST_KAFKA names, or one in a container of its own; ends the command without."""
    given = os.environ.get("TIDEGATE_TEST_KAFKA")
    if given:
        try:
            AdminClient({"bootstrap.servers": given, "log_level": 0}).list_topics(timeout=10)
        except KafkaException as error:
            sys.exit(
                f"the broker that TIDEGATE_TEST_KAFKA names, {given}, does not answer: {error.args[0].str()}\n"
                "hint: start it, or unset the variable for one in a container"
            )
        yield Broker(given, "of unknown version, named by TIDEGATE_TEST_KAFKA")
        return
    if why := why_no_docker():
        sys.exit(
            f"no broker to measure with: {why}\nhint: name one in TIDEGATE_TEST_KAFKA, e.g. 127.0.0.1:9092"
        )
    on_host = sys.platform == "linux"
    with HostKafka() if on_host else Kafka(**HEAP) as broker:
        broker.wait_ready()
        network = "the host's network" if on_host else "a published port"
        yield Broker(broker.address, f"{broker.version}, in a container on {network}")
