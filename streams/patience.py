"""How long aiokafka waits for a broker that keeps its connections and does not answer any more.

That is what is left of a broker whose machine is cut off, or stopped. aiokafka has one limit for all requests,
which must let a group wait for its members, and a slow link carry a large fetch: a minute and more, while the
cluster has given the broker's partitions to others within seconds.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import RequestTimedOutError

#: A request that is not answered for so long has the cluster asked, again and again, whether the broker is in it.
ASK_AFTER_S = 4.0
_ATTEMPTS = 5


def give_up_what_is_gone(client: AIOKafkaClient) -> None:
    """Have requests of this client fail once the broker that they were sent to is not in the cluster any more."""
    send, update = client.send, client._metadata_update

    async def send_while_there(node_id: Any, request: Any, **kwargs: Any) -> Any:
        answer = asyncio.ensure_future(send(node_id, request, **kwargs))
        try:
            while not (await asyncio.wait([answer], timeout=ASK_AFTER_S))[0]:
                await asyncio.wait(
                    [answer, client.force_metadata_update()], return_when=asyncio.FIRST_COMPLETED
                )
                if not answer.done() and all(node_id != broker.nodeId for broker in client.cluster.brokers()):
                    _close(client, node_id)
                    raise RequestTimedOutError(f"broker {node_id} does not answer, and has left the cluster")
            return answer.result()
        finally:
            answer.cancel()

    async def update_from_any(*args: Any) -> Any:
        for _ in range(_ATTEMPTS):  # it asks one at random, and the next only if that one fails
            try:
                async with asyncio.timeout(ASK_AFTER_S):
                    return await update(*args)
            except TimeoutError:
                continue
        return False

    client.send, client._metadata_update = send_while_there, update_from_any


def _close(client: AIOKafkaClient, node_id: Any) -> None:
    for at in [at for at in client._conns if at[0] == node_id]:
        client._conns.pop(at).close(reason=CloseReason.CONNECTION_TIMEOUT)
