"""A receiver of webhooks on a real socket, for the tests of rollouts."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """Answers with the statuses in turn, the last one for ever; ``heard`` and ``headers`` are what came."""

    statuses: tuple[int, ...] = (204,)
    heard: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def status(self) -> int:
        return self.statuses[min(len(self.heard), len(self.statuses)) - 1]


@contextmanager
def receiving(hook: Hook, tls: ssl.SSLContext | None = None) -> Iterator[Hook]:
    """The hook, listening on ``hook.port``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.heard.append(json.loads(body))
            hook.headers.append(dict(self.headers.items()))
            hook.paths.append(self.path)
            self.send_response(hook.status())
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is meant
    hook.port = server.server_address[1]
    with server, _serving(server.serve_forever, server.shutdown):
        yield hook


@contextmanager
def _serving(serve: Callable[..., None], stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=serve, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()
