"""A whole servelens on one machine, started the way a user starts it: a settings file and ``servelens up``."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import yaml

from collector.catalog import Catalog, EndpointTables
from servelens.assembly.tables import build_catalog
from servelens.settings import Settings
from servelens.settings_file import load_settings

START_LIMIT_S = 120.0


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Return as soon as ``condition`` holds; fail after ``limit_s`` seconds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.05)


@dataclass
class System:
    """``servelens up`` in ``folder`` with ``endpoints`` (and whatever else is in ``settings``) while the block runs."""

    folder: Path
    endpoints: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    wait_for: Sequence[str] = ("proxy", "console")

    def __enter__(self) -> Self:
        self.proxy_port = self.settings.get("proxy", {}).get("port") or free_port()
        self.console_port, self.collector_port, self.scheduler_port = free_port(), free_port(), free_port()
        written = {
            "data_dir": "data",
            "endpoints": list(self.endpoints),
            **self.settings,
            "proxy": {"port": self.proxy_port, **self.settings.get("proxy", {})},
            "console": {"port": self.console_port},
            "collector": {"port": self.collector_port, **self.settings.get("collector", {})},
            "scheduler": {"port": self.scheduler_port},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "servelens.yaml"
        self.config.write_text(yaml.safe_dump(written))
        self.log = self.folder / "servelens.log"
        self.start()
        return self

    def start(self) -> None:
        """Start ``servelens up`` and wait until it serves."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servelens", "up", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, PYTHONWARNINGS="default"),
            )
        urls = {
            "proxy": self.proxy_url,
            "console": self.console_url,
            "collector": self.collector_url,
        }
        try:
            for name in self.wait_for:
                wait_until(lambda name=name: self._ready(urls[name]), START_LIMIT_S, f"{name} is ready")  # type: ignore[misc]
        except AssertionError:
            self.stop()
            raise AssertionError(self.log.read_text()[-8000:]) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            sys.stderr.write(self.log.read_text()[-8000:])

    def stop(self) -> int:
        """Ask it to stop, as Ctrl-C does, and wait until it has; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(150)

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def collector_url(self) -> str:
        return f"http://127.0.0.1:{self.collector_port}"

    @property
    def console_url(self) -> str:
        return f"http://127.0.0.1:{self.console_port}"

    @property
    def scheduler_url(self) -> str:
        return f"http://127.0.0.1:{self.scheduler_port}"

    def loaded(self) -> Settings:
        """The settings as the processes read them."""
        return load_settings(self.config)

    def catalog(self) -> Catalog:
        """All tables."""
        return build_catalog(self.loaded())

    def tables(self, endpoint: str) -> EndpointTables:
        """The tables of ``endpoint``."""
        return self.catalog().tables(endpoint)

    def child(self, command: str, slot: str | None = None) -> psutil.Process | None:
        """The running child with this sub-command (``proxy`` with this slot)."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return None
        for child in children:
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            if command in line and (slot is None or slot in line):
                return child
        return None

    def _ready(self, url: str) -> bool:
        if self.process.poll() is not None:
            raise AssertionError("servelens up ended")
        try:
            return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


def post_json(
    connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any], **headers: str
) -> tuple[int, str | None, bytes]:
    """One POST on a kept connection: status, ``x-request-id`` and the whole body.

    Raises ``OSError`` or ``http.client.HTTPException`` when the answer did not arrive whole.
    """
    connection.request(
        "POST", path, json.dumps(body).encode(), {"content-type": "application/json", **headers}
    )
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, answer.getheader("x-request-id"), content
