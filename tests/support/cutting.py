"""A proxy that cuts a connection in the very moment in which something is said on it."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any, cast

from support.proxy import Proxy


class CuttingProxy(Proxy):
    """Cuts a connection when the client sends these words: before the server gets them, or before it answers."""

    words: bytes | None = None
    forward = True

    def _pump(self, link: Any, source: socket.socket, sink: socket.socket) -> None:
        super()._pump(link, source, cast("socket.socket", _Sink(self, link, sink)))


class _Sink:
    """One direction of a connection, watched."""

    def __init__(self, proxy: CuttingProxy, link: Any, sink: socket.socket) -> None:
        self._proxy = proxy
        self._link = link
        self.shutdown = sink.shutdown
        self._send = sink.sendall

    def sendall(self, data: bytes) -> None:
        if getattr(self._link, "mute", False):
            return
        if self._proxy.words is None or self._proxy.words not in data:
            self._send(data)
            return
        self._proxy.words = None
        self._link.mute = True
        if self._proxy.forward:
            self._send(data)
            time.sleep(0.3)  # for the server to act upon it
        for end in self._link.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
