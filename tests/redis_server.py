"""A private Redis server for tests, on a port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

MISSING = "no Redis server on this machine: install it with 'apt install redis-server'"
_START_TIMEOUT_S = 30.0


class RedisServer:
    """A running server at ``url``."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    def answers(self) -> bool:
        """Whether it takes connections and answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


def redis_binary() -> str | None:
    """The path of ``redis-server``, or ``None`` when it is not installed."""
    return shutil.which("redis-server")


@contextmanager
def redis_server(binary: str, port: int) -> Iterator[RedisServer]:
    """Start a server that keeps nothing, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="servelens-redis-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            server = RedisServer(process, port)
            deadline = time.monotonic() + _START_TIMEOUT_S
            while not server.answers():
                assert process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)
            yield server
        finally:
            process.kill()
            process.wait(timeout=30)
