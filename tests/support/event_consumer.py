"""A consumer of a stream as a process of its own, to be killed: writes a file for each event, then acknowledges it.

    python event_consumer.py BROKER STREAM GROUP NAME FOLDER [HOLD]

The file's name is the event's number, its content the ids under which it was applied. At event HOLD it stays for
ever, after the effect and before the acknowledgement, and says so.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streams.ecosystem.event_bus import KafkaEventBus


async def main(broker: str, stream: str, group: str, name: str, folder: Path, hold: int) -> None:
    async with KafkaEventBus(broker, session_timeout_s=6.0) as bus:
        async for envelope in bus.subscribe(stream, group=group, consumer=name):
            number = envelope.payload.queue_size
            with folder.joinpath(str(number)).open("a") as effect:
                effect.write(f"{envelope.id}\n")
            if number == hold:
                print("holding", flush=True)
                await asyncio.Event().wait()
            await bus.ack(stream, envelope.id)


if __name__ == "__main__":
    _, broker, stream, group, name, folder, *hold = sys.argv
    asyncio.run(main(broker, stream, group, name, Path(folder), int(hold[0]) if hold else -1))
