"""The links that faults are done to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from support.proxy import Proxy
from support.wait import until


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A link to a server that sends back what it gets."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    def echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener, Proxy() as proxy:
        proxy.target = listener.getsockname()
        threading.Thread(target=serve, daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def _echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(100)


def test_a_cut_resets_what_is_there_and_what_comes_until_it_is_mended(proxy: Proxy) -> None:
    with _connect(proxy) as client:
        assert _echoed(client, b"before") == b"before"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with pytest.raises(ConnectionResetError), _connect(proxy) as refused:
        _echoed(refused, b"meanwhile")
    proxy.resume()
    with _connect(proxy) as client:
        assert _echoed(client, b"after") == b"after"


def test_a_stall_keeps_connections_and_what_they_carry(proxy: Proxy) -> None:
    with _connect(proxy) as client:
        proxy.stall()
        client.sendall(b"late")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        proxy.resume()
        client.settimeout(5)
        assert client.recv(100) == b"late"


def test_a_cut_ends_connections_that_are_stalled_or_full(proxy: Proxy) -> None:
    with _connect(proxy) as client:
        proxy.stall()
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(64 << 20))
        proxy.cut()
        with pytest.raises(ConnectionError):
            until(lambda: client.sendall(b"more"), 5, "the connection is gone")


def test_a_slow_link_holds_each_piece(proxy: Proxy) -> None:
    with _connect(proxy) as client:
        proxy.slow(0.1)
        started = time.monotonic()
        assert _echoed(client, b"slowly") == b"slowly"
        assert time.monotonic() - started > 0.2


def test_a_target_that_is_away_is_a_reset_and_comes_back(proxy: Proxy) -> None:
    target, proxy.target = proxy.target, ("127.0.0.1", 1)
    with pytest.raises(ConnectionResetError), _connect(proxy) as client:
        _echoed(client, b"nobody")
    proxy.target = target
    with _connect(proxy) as client:
        assert _echoed(client, b"again") == b"again"
