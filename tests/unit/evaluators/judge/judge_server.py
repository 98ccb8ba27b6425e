"""A chat server on loopback that answers as a test wants, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """A status, a body (JSON unless it is bytes) and headers; ``hang``: nothing is sent before the server closes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False


@dataclass
class Asked:
    """One request: its JSON and its headers (names in lower case)."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def data(self) -> str:
        """The user's message, which has the judged texts."""
        return str(self.body["messages"][-1]["content"])


def completion(content: str | None, **message: Any) -> Reply:
    """A chat completion that says ``content``; ``finish_reason`` and ``usage`` may be given."""
    usage = message.pop("usage", {"prompt_tokens": 100, "completion_tokens": 20})
    choice = {
        "index": 0,
        "finish_reason": message.pop("finish_reason", "stop"),
        "message": {"role": "assistant", "content": content} | message,
    }
    return Reply(
        body={"object": "chat.completion", "choices": [choice]} | ({"usage": usage} if usage else {})
    )


def graded(score: Any = 4, **more: Any) -> Reply:
    """A grade as it was asked for."""
    return completion(json.dumps({"explanation": "It is right.", "score": score} | more))


class JudgeServer:
    """``answer`` is called for each request, in the thread that serves it."""

    def __init__(self, url: str, closing: threading.Event) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Reply] = lambda asked: graded()
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()
        self._closing = closing


@contextlib.contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """The server, until the block ends."""
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked = Asked(body, {name.lower(): value for name, value in self.headers.items()})
            with judge.lock:
                judge.asked.append(asked)
                judge.under_way += 1
                judge.most_under_way = max(judge.most_under_way, judge.under_way)
            try:
                reply = judge.answer(asked) if self.path == "/v1/chat/completions" else Reply(404, {})
            finally:
                with judge.lock:
                    judge.under_way -= 1
            if reply.hang:
                closing.wait(30)
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("content-length", str(len(content)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    judge = JudgeServer(f"http://127.0.0.1:{server.server_port}/v1", closing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield judge
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
