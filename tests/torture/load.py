"""Callers that go on whatever happens, and remember the request id of every answer that came whole."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType
from typing import Self

from tests.integration.system import post_json

_SENDERS = 4
_PAUSE_S = 0.008


class Load:
    """``answered`` are request ids of whole answers with status 200."""

    def __init__(self, port: int, endpoints: tuple[str, ...]) -> None:
        self.answered: set[str] = set()
        self.repeated: list[str] = []
        self.refused: list[tuple[int, bytes]] = []
        self.cut = 0
        self._port, self._endpoints = port, endpoints
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(each,)) for each in range(_SENDERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, sender: int) -> None:
        number = 0
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                while not self._stop.wait(_PAUSE_S):
                    number += 1
                    body = {
                        "model": self._endpoints[number % len(self._endpoints)],
                        "messages": [{"role": "user", "content": f"sender {sender} number {number} " * 20}],
                        "stream": number % 3 == 0,
                    }
                    self._note(*post_json(connection, "/v1/chat/completions", body))
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.cut += 1
                time.sleep(0.02)  # nobody listens for a moment, which is what this is about
            finally:
                connection.close()

    def _note(self, status: int, request_id: str | None, content: bytes) -> None:
        with self._lock:
            if status != 200 or not request_id:
                self.refused.append((status, content))
            elif request_id in self.answered:
                self.repeated.append(request_id)
            else:
                self.answered.add(request_id)
