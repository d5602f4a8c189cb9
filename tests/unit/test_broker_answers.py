"""How long a broker is waited for that does not answer."""

from __future__ import annotations

import socket
import time

import pytest

from schemas.errors import BrokerError
from streams.broker import cluster_now
from streams.settings import load_settings


def refused(*brokers: str, timeout_s: float) -> float:
    """Seconds until it is told that none of them answers."""
    began = time.monotonic()
    with pytest.raises(BrokerError, match="did not answer"):
        cluster_now(load_settings(None, broker=",".join(brokers)), timeout_s)
    return time.monotonic() - began


def test_where_every_server_refuses_nothing_more_is_waited_for() -> None:
    assert refused("127.0.0.1:1", "127.0.0.1:2", timeout_s=30.0) < 15


def test_a_server_that_takes_the_connection_is_given_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert refused(address, timeout_s=2.0) >= 1.9
        assert refused("127.0.0.1:1", address, timeout_s=2.0) >= 1.9
