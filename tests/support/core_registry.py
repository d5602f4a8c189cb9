"""A server of the ecosystem's schema registry: the endpoints that core-registry-client asks, on a real socket."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from support.containers import HOST, free_port


class CoreRegistry:
    """May be stopped and started again on its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.schemas: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[str] = []
        self.delay_s = 0.0
        self.garbage: bytes | None = None
        """What it answers instead, whatever it is asked."""
        self.spoilt: set[str] = set()
        """Names that it fails to answer for."""
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def put(self, name: str, content: dict[str, Any], track: str = "v2") -> None:
        """Publish a schema."""
        self.schemas[track, name] = content

    def start(self) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                time.sleep(registry.delay_s)
                status, body = registry._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Nothing: the tests look at `asked`."""

        self._server = ThreadingHTTPServer((HOST, self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}
        ).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, path: str) -> tuple[int, bytes]:
        if self.garbage is not None:
            return 200, self.garbage
        _, _, track, name = path.split("?")[0].split("/")
        if name in self.spoilt:
            return 500, b"{}"
        content = self.schemas.get((track, name))
        if content is None:
            return 404, b'{"detail": "not found"}'
        text = json.dumps(content, sort_keys=True).encode()
        found = {
            "name": name,
            "track": track,
            "core_version": "1.4.61",
            "sha256": hashlib.sha256(text).hexdigest(),
            "$schema_id": f"{track}.{name}",
            "content": content,
            "deprecated": False,
            "deprecation_note": None,
        }
        return 200, json.dumps(found).encode()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
