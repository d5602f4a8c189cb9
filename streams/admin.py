"""Reading and changing topics on a broker, for `streams.topicplan`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from schemas.errors import BrokerError
from streams.broker import cluster_now, confluent_config
from streams.settings import Settings
from streams.topicplan import ActualTopic, Create, Differs, PlannedTopic, SetConfig

REQUEST_S = 30.0


class TopicAdmin:
    """One cluster's topics. Raises `BrokerError` where it does not answer or does not allow to look."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        metadata = cluster_now(settings)
        self.brokers = len(metadata.brokers)
        self._topics = metadata.topics
        self._admin = AdminClient(confluent_config(settings))

    def read(self, names: Iterable[str]) -> dict[str, ActualTopic]:
        """Those of the topics that exist."""
        here = [name for name in names if name in self._topics]
        configs = self._configs(here)
        topics = {}
        for name in here:
            partitions = self._topics[name].partitions.values()
            # While it is moved a partition has more replicas than it is meant to have.
            replication = min((len(partition.replicas) for partition in partitions), default=0)
            topics[name] = ActualTopic(len(partitions), replication, configs[name])
        return topics

    def _configs(self, names: list[str]) -> dict[str, Mapping[str, str | None]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = self._admin.describe_configs(resources, request_timeout=REQUEST_S)
        configs: dict[str, Mapping[str, str | None]] = {}
        for resource, future in futures.items():
            try:
                entries: Mapping[str, ConfigEntry] = future.result()
            except KafkaException as exc:
                broker = self._settings.broker
                raise BrokerError(
                    f"broker {broker} does not tell the settings of {resource.name}: {_reason(exc)}",
                    hint="is the user allowed to describe topics?",
                ) from None
            configs[resource.name] = {name: entry.value for name, entry in entries.items()}
        return configs

    def apply(self, changes: Iterable[Create | SetConfig | Differs]) -> dict[str, str]:
        """Make what is missing and set what is otherwise; gives the topics that failed, with the reason.

        Returns once the broker shows it: a new topic with a leader for every partition, a setting with
        its new value. A topic that somebody else made meanwhile is no failure: the next plan tells
        whether it is as it should be.
        """
        new = [change.topic for change in changes if isinstance(change, Create)]
        alter = [change for change in changes if isinstance(change, SetConfig)]
        failed = self._create(new) if new else {}
        failed |= self._set(alter) if alter else {}
        leaderless = {topic.name for topic in new} - set(failed)
        unset = [change for change in alter if change.name not in failed]
        deadline = time.monotonic() + REQUEST_S
        while leaderless or unset:
            leaderless = self._leaderless(leaderless)
            unset = self._unset(unset)
            if time.monotonic() > deadline:
                late = f"accepted, and not in effect after {REQUEST_S:g} s"
                return failed | dict.fromkeys([*leaderless, *(change.name for change in unset)], late)
            if leaderless or unset:
                time.sleep(0.05)
        return failed

    def _create(self, topics: list[PlannedTopic]) -> dict[str, str]:
        wanted = [
            NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.config))
            for topic in topics
        ]
        futures = self._admin.create_topics(wanted, operation_timeout=REQUEST_S, request_timeout=REQUEST_S)
        return _failures(futures, str, ignore=KafkaError.TOPIC_ALREADY_EXISTS)

    def _set(self, changes: list[SetConfig]) -> dict[str, str]:
        resources = [
            ConfigResource(
                ResourceType.TOPIC,
                change.name,
                incremental_configs=[
                    ConfigEntry(name, planned, incremental_operation=AlterConfigOpType.SET)
                    for name, (_, planned) in change.settings.items()
                ],
            )
            for change in changes
        ]
        futures = self._admin.incremental_alter_configs(resources, request_timeout=REQUEST_S)
        return _failures(futures, lambda resource: str(resource.name))

    def _leaderless(self, names: set[str]) -> set[str]:
        seen = cluster_now(self._settings).topics if names else {}
        return {name for name in names if name not in seen or not _led(seen[name])}

    def _unset(self, changes: list[SetConfig]) -> list[SetConfig]:
        configs = self._configs([change.name for change in changes])
        # A setting that the broker did not tell before may never be told.
        return [
            change
            for change in changes
            if any(
                old is not None and configs[change.name].get(name) == old
                for name, (old, _) in change.settings.items()
            )
        ]


def _led(topic: Any) -> bool:
    return bool(topic.partitions) and all(one.leader >= 0 for one in topic.partitions.values())


def _failures(
    futures: Mapping[Any, Future[None]], name: Callable[[Any], str], ignore: int | None = None
) -> dict[str, str]:
    failed = {}
    for key, future in futures.items():
        try:
            future.result()
        except KafkaException as exc:
            if exc.args[0].code() != ignore:
                failed[name(key)] = _reason(exc)
    return failed


def _reason(exc: KafkaException) -> str:
    return str(exc.args[0].str())
