"""``tidegate status``: what holds the flow back, and how far everybody is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from schemas.health import worst
from streams.cli.options import broker_option, config_option
from streams.cli.output import emit
from streams.settings import load_settings

if TYPE_CHECKING:
    from streams.status import Status


@click.command("status")
@broker_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(broker: str | None, config: Path | None, as_json: bool) -> None:
    """Show which partitions are held back, since when, why and by whom, and how far everybody is.

    What was decided last is read from the rate topic, what the stores say from the feedback topic, and
    the groups are asked for their members and offsets. Nothing is joined, committed or changed. Exits
    with 0 whatever it sees, and with 1 where it cannot look.

    \b
    Examples:
      tidegate status
      tidegate status --broker kafka-1:9092 --json | jq '.ticks[] | select(.scale < 1)'
      watch tidegate status
    """
    from streams.cli.status_view import print_status
    from streams.status import look  # loads the Kafka client, as --help need not

    status = look(load_settings(config, broker=broker))
    if as_json:
        emit(json.dumps(as_object(status)) + "\n")
    else:
        print_status(status)


def as_object(status: Status) -> dict[str, Any]:
    """Everything, for machines. Times are seconds since the epoch."""
    groups = {
        role: {
            "name": group.name,
            "rebalancing": group.rebalancing,
            "members": [{"id": member.id, "host": member.host} for member in group.members],
        }
        for role, group in (("bars", status.bars), ("store", status.store))
    }
    groups["bars"]["lag"] = sum(one.lag for one in status.ticks)
    groups["store"]["lag"] = sum(status.bars_lag.values())
    groups["store"]["lags"] = {str(partition): lag for partition, lag in sorted(status.bars_lag.items())}
    ticks = [
        {
            "topic": one.topic,
            "partition": one.partition,
            "lag": one.lag,
            "scale": one.hold.scale if one.hold else 1.0,
            "since": one.hold and one.hold.since,
            "reason": one.hold and one.hold.reason.value,
            "coordinator_id": one.hold and one.hold.coordinator_id,
            "owner": one.owner and one.owner.id,
            "note": one.note or None,
        }
        for one in status.ticks
    ]
    coordinators = [
        {
            "coordinator_id": one.said.coordinator_id,
            "partitions": list(one.partitions),
            "level": one.said.level.value,
            "queue_size": one.said.queue_size,
            "capacity": one.said.capacity,
            "drain_rate": one.said.drain_rate,
            "dropped": one.dropped,
            "ts": one.said.ts,
            "age": round(one.age_s, 3),
        }
        for one in status.coordinators
    ]
    from streams.status_health import components

    parts = components(status)
    return {
        "broker": status.broker,
        "ts": status.at,
        "state": worst(parts).value,
        "components": [msgspec.to_builtins(part) for part in parts],
        "operator": [msgspec.to_builtins(pause) for pause in status.pauses],
        "groups": groups,
        "ticks": ticks,
        "coordinators": coordinators,
        "problems": status.problems,
    }
