"""Connections to PostgreSQL that notice when the other end is gone."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import asyncpg

from streams.store.postgres_errors import unreadable_url

CONNECT_TIMEOUT_S = 10.0
CLEANUP_TIMEOUT_S = 5.0

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""A peer that vanished without a word is noticed in half a minute. A slow database answers on this level."""


async def connect(url: str, name: str, *, read_only: bool, timeout_s: float) -> Any:
    """A new connection; `timeout_s` is for each statement."""
    settings = {} if "application_name=" in url else {"application_name": "tidegate"}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, command_timeout=timeout_s, server_settings=settings
        )
    except ValueError as error:
        if isinstance(error, OSError):  # of a certificate
            raise
        raise unreadable_url(name) from None
    _keep_alive(connection._transport.get_extra_info("socket"))
    return connection


async def roll_back(connection: Any, transaction: Any) -> None:
    """Keep the connection where that works: to connect anew is dear where many bars are refused."""
    try:
        async with asyncio.timeout(CLEANUP_TIMEOUT_S):
            await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


async def hang_up(connection: Any) -> None:
    """Say good-bye and disconnect."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await connection.close(timeout=CONNECT_TIMEOUT_S)


def _keep_alive(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
