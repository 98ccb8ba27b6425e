"""An S3 API server for tests, in a process of its own: moto's, with what it lacks to be an honest judge of commits.

moto looks whether an object is there and then writes it, so of two conditional puts at once both could win; here whole
changes take turns, as on S3 itself (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
The server goes away and comes back with its objects, answers 500 or 403, or late, when it is told to. A process of its
own, since delta-rs holds Python's lock during some of its requests, so a server in the same process could not answer.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

BUCKET = "tables"
_REGION = "us-east-1"
_ACCESS_KEY = "test-access-key"
_SECRET_KEY = "test-secret-key"  # the server looks at neither
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_FAILED = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


class S3Server:
    """A running server at ``url`` with the bucket :data:`BUCKET`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs needs to reach it."""
        return {
            "aws_endpoint": self.url,
            "aws_region": _REGION,
            "aws_access_key_id": _ACCESS_KEY,
            "aws_secret_access_key": _SECRET_KEY,
            "aws_allow_http": "true",
        }

    def go_away(self) -> None:
        """Close the port and every connection; the objects stay."""
        self._tell("away")

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._tell("back")

    def behave(self, how: str = "well") -> None:
        """``well``; ``500`` or ``403``: answer every request so; ``late``: a second late; ``lose``: write every commit
        and answer that it failed; ``race``: keep a commit waiting for a second one of the same version, a second long.
        """
        self._tell(how)

    def counts(self) -> Mapping[str, int]:
        """How many requests there were: ``refused`` are conditional puts that came second."""
        counts: dict[str, int] = json.loads(self._tell("counts"))
        return counts

    def _tell(self, what: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, "the S3 server ended"
        return answer


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server and end it with the block."""
    command = [sys.executable, "-m", "tests.s3_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, "the S3 server did not start: is moto[server] installed?"
            yield S3Server(process, url)
        finally:
            process.terminate()


class _Server:
    """The server's side: moto behind a switch."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
        self._changes = threading.Lock()
        self._meeting = threading.Condition()
        self._waiting: dict[str, int] = {}
        self._how = "well"
        self._counts = {"requests": 0, "puts": 0, "refused": 0}
        self._connections: set[socket.socket] = set()
        self.port = 0
        self.back()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        how = self._how
        self._counts["requests"] += 1
        if how == "late":
            time.sleep(1.0)
        if how in ("500", "403"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or the connection is spoilt
            return _refusal(how, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._app(environ, start_response)
        path = environ["PATH_INFO"]
        commit = environ["REQUEST_METHOD"] == "PUT" and path.endswith(".json") and "/_delta_log/" in path
        if how == "race" and commit:
            self._meet(path)
        said: list[Any] = []

        def remember(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
            said[:] = [status, headers, *more]
            return lambda _: None

        with self._changes:
            body = list(self._app(environ, remember))
            self._counts["puts"] += environ["REQUEST_METHOD"] == "PUT"
            self._counts["refused"] += str(said[0]).startswith("412")
        if how == "lose" and commit and str(said[0]).startswith("2"):
            return _refusal("500", start_response)
        start_response(*said)
        return body

    def _meet(self, path: str) -> None:
        with self._meeting:
            self._waiting[path] = self._waiting.get(path, 0) + 1
            self._meeting.notify_all()
            self._meeting.wait_for(lambda: self._waiting[path] > 1, 1.0)

    def back(self) -> None:
        from moto.moto_server.werkzeug_app import MotoRequestHandler
        from werkzeug.serving import ThreadedWSGIServer

        connections = self._connections

        class Server(ThreadedWSGIServer):
            def process_request(self, request: Any, client_address: Any) -> None:
                connections.add(request)
                super().process_request(request, client_address)

            def shutdown_request(self, request: Any) -> None:
                connections.discard(request)
                super().shutdown_request(request)

            def handle_error(self, *_: object) -> None:
                """A connection that was cut; nobody wants to read that."""

        self._server = Server("127.0.0.1", self.port, self, MotoRequestHandler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def away(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has gone by itself
                continue

    def follow(self, line: str) -> str:
        if line == "away":
            self.away()
        elif line == "back":
            self.back()
        elif line == "counts":
            return json.dumps(self._counts)
        else:
            self._how = line
        return "done"


def _refusal(status: str, start_response: Callable[..., Any]) -> list[bytes]:
    body = _DENIED if status == "403" else _FAILED
    start_response(f"{status} No", [("content-type", "application/xml"), ("content-length", str(len(body)))])
    return [body]


def main() -> None:
    """Serve until standard input ends; one line in is one command, one line out its answer."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    import boto3

    server = _Server()
    url = f"http://127.0.0.1:{server.port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=_REGION,
        aws_access_key_id=_ACCESS_KEY,
        aws_secret_access_key=_SECRET_KEY,
    )
    client.create_bucket(Bucket=BUCKET)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{server.follow(line.strip())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
