"""A TCP proxy on loopback that stalls, slows or cuts what it forwards, as networks and databases do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Closing sends a reset instead of a proper end.
_ABORT = struct.pack("ii", 1, 0)


class _Link:
    """A client's connection and its continuation to the target."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.cut = False
        self.threads: list[threading.Thread] = []

    def reset(self) -> None:
        """Make both ends see a reset."""
        self.cut = True
        self._wake(socket.SHUT_RD)
        for thread in self.threads:
            thread.join(0.5)
        # Whoever sends to a peer that does not read. Not without need: it would say a proper end before the reset.
        if any(thread.is_alive() for thread in self.threads):
            self._wake(socket.SHUT_RDWR)

    def _wake(self, how: int) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                end.shutdown(how)

    def close(self) -> None:
        for end in self.ends:
            end.close()


class Proxy:
    """Forwards to `target`; while stalled, connections stay open and nothing moves."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        #: Where new connections go on to; it may be set later.
        self.target = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._delay_s = 0.0
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._accepting = self._spawn(self._accept)

    def stall(self) -> None:
        """Stop forwarding, both ways."""
        self._flowing.clear()

    def slow(self, delay_s: float) -> None:
        """Hold each piece for so long, which makes it a link of 64 KiB per `delay_s` at best."""
        self._delay_s = delay_s

    def cut(self) -> None:
        """Reset all connections, and new ones as they come."""
        self._refusing = True
        with self._lock:
            links = list(self._links)
        for link in links:
            link.reset()

    def resume(self) -> None:
        """Forward again, what has waited first."""
        self._refusing = False
        self._delay_s = 0.0
        self._flowing.set()

    def _spawn(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if (server := None if self._refusing else self._connect()) is None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            with self._lock:
                self._links.add(link)
            self._spawn(self._forward, link)

    def _connect(self) -> socket.socket | None:
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            return None
        server.settimeout(None)
        return server

    def _forward(self, link: _Link) -> None:
        client, server = link.ends
        link.threads = [self._spawn(self._pump, link, *ends) for ends in ((client, server), (server, client))]
        for thread in link.threads:
            thread.join()
        link.close()
        with self._lock:
            self._links.discard(link)

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._delay_s:
                    time.sleep(self._delay_s)
                while not self._flowing.wait(0.1) and not link.cut:
                    pass
                if link.cut:
                    return
                sink.sendall(data)
        with contextlib.suppress(OSError):
            if not link.cut:
                sink.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(6)
        self.cut()
        deadline = time.monotonic() + 5
        while self._links and time.monotonic() < deadline:
            time.sleep(0.01)
