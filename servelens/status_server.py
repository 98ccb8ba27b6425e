"""``/health/live``, ``/health/ready`` and ``/metrics`` of a process that serves nothing else (collector, scheduler).

A few requests a minute from a load balancer and Prometheus: the standard library's server in a thread is enough.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from servelens.errors import Unavailable


class StatusServer:
    """Answers on ``host:port`` while its ``with`` block runs.

    ``ready`` says whether the process does its work, with the detail for people; ``metrics`` is asked at each scrape.
    Raises :class:`~servelens.errors.Unavailable` when the address is taken. ``port`` 0 takes a free one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ready: Callable[[], tuple[bool, Mapping[str, Any]]],
        metrics: Callable[[], Iterable[Metric]],
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Metrics(metrics))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/health/live":
                    self._answer_json(200, {"status": "ok"})
                elif path == "/health/ready":
                    is_ready, detail = ready()
                    self._answer_json(200 if is_ready else 503, detail)
                else:
                    self._answer_json(404, {"detail": "Use /health/live, /health/ready or /metrics."})

            def _answer_json(self, status: int, body: Mapping[str, Any]) -> None:
                self._answer(status, "application/json", json.dumps(body).encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """A scrape is not worth a line."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {host}:{port}: {error.strerror}",
                fix="Choose another port in the settings.",
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="status-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Metrics:
    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics()
