"""Receivers of notifications on loopback: real HTTP and SMTP servers that do what a test tells them to."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpSink:
    """Answers each POST with the next of ``answers`` (status, or status with headers), the last one for ever. ``None`` is no
    answer until the sink is closed."""

    answers: list[int | tuple[int, dict[str, str]] | None]
    url: str = ""
    body: bytes = b"ok"
    received: list[Received] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def http_sink(*answers: int | tuple[int, dict[str, str]] | None, body: bytes = b"ok") -> Iterator[HttpSink]:
    sink = HttpSink(list(answers) or [200], body=body)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            number = len(sink.received)
            sink.received.append(
                Received({name.lower(): value for name, value in self.headers.items()}, content)
            )
            answer = sink.answers[min(number, len(sink.answers) - 1)]
            if answer is None:
                # Bytes that come for ever, so that only a limit for the whole request ends it.
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not sink.closing.wait(0.02):
                    try:
                        self.wfile.write(b"x-wait: 1\r\n")
                    except OSError:
                        return
                return
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(sink.body)))
            self.end_headers()
            self.wfile.write(sink.body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sink.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class SmtpSink:
    """Takes mail; refuses recipients in ``refused`` with their code, and each mail with ``answer`` if it is not 250."""

    port: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    answer: int = 250
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)


@contextmanager
def smtp_sink(
    context: ssl.SSLContext | None = None, *, implicit: bool = False, silent: bool = False
) -> Iterator[SmtpSink]:
    """A mail server (RFC 5321); with ``context`` it offers STARTTLS, with ``implicit`` TLS from the first byte. A ``silent``
    one takes connections and says nothing."""
    sink = SmtpSink()
    closing = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if silent:
                closing.wait(10)
                return
            connection: socket.socket = self.request
            if implicit and context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with ExitStack() as opened:
                opened.callback(connection.close)
                with suppress(OSError):  # a client that does not trust us leaves
                    self._talk(connection, opened)

        def _talk(self, connection: socket.socket, opened: ExitStack) -> None:
            secured, recipients = implicit, list[str]()
            stream = opened.enter_context(connection.makefile("rb"))

            def say(text: str) -> None:
                connection.sendall(text.encode() + b"\r\n")

            say("220 sink")
            while line := stream.readline():
                words = line.decode().strip()
                verb = words[:4].upper()
                if verb == "EHLO":
                    offers = ["sink", "AUTH PLAIN", *(["STARTTLS"] if context and not secured else [])]
                    for offer in offers[:-1]:
                        say(f"250-{offer}")
                    say(f"250 {offers[-1]}")
                elif words.upper() == "STARTTLS":
                    assert context is not None
                    say("220 go on")
                    connection = context.wrap_socket(connection, server_side=True)
                    opened.callback(connection.close)
                    stream, secured = opened.enter_context(connection.makefile("rb")), True
                elif verb == "AUTH":
                    sink.logins.append(words)
                    say("235 welcome")
                elif verb == "RCPT":
                    address = words.partition("<")[2].partition(">")[0]
                    code = sink.refused.get(address, 250)
                    if code == 250:
                        recipients.append(address)
                    say(f"{code} that is my answer")
                elif verb == "DATA":
                    say("354 go on")
                    content = b""
                    while (part := stream.readline()) != b".\r\n":
                        content += part
                    if sink.answer == 250:
                        sink.mails.append(message_from_bytes(content, policy=policy.default))
                        sink.recipients.append(recipients)
                        sink.secured.append(secured)
                    recipients = []
                    say(f"{sink.answer} that is my answer")
                elif verb == "QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 fine")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        sink.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            closing.set()
            server.shutdown()
            thread.join()
