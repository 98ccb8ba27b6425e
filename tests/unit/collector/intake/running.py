"""An intake as a server of its own: in a thread of the test, or ``python -m tests.unit.collector.intake.running FOLDER``.

The process writes its port to ``FOLDER/port`` and serves until SIGTERM, with a join time-out of a minute.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from collector.intake.refusal import Refusal
from collector.intake.rules import Entity, Rules, Target
from collector.intake.server import SLOT, IntakeConfig, IntakeServer
from collector.reader import SpoolReader
from collector.record import Record, decode
from servelens.clock import SystemClock

RULES = Rules(
    {
        "chat": Target("chat", {"small": Entity("small", "chat/small/3", "3")}, 7),
        "iris": Target("iris", {"default": Entity("default"), "canary": Entity("canary")}, 2),
        "secret": Target("secret", keep=lambda _record: None),
        "tiny": Target("tiny", payload_limit_bytes=64),
    },
    names={"team/llm": "chat", "checkout": "chat"},
)
REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"


class OpenDoor:
    """Lets everybody in who is not met by one of ``refusals``, which are taken in their order."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.refusals: list[Refusal] = []
        self.asked = 0
        self._rules = rules

    def caller(self, fields: Mapping[bytes, bytes]) -> str | None:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return "sender"

    def rules(self) -> Rules:
        return self._rules


class Running:
    """A server that runs, its address, and what lies in its spool."""

    def __init__(self, folder: Path, server: IntakeServer, door: OpenDoor) -> None:
        self.folder = folder
        self.server = server
        self.door = door
        self.url = f"http://127.0.0.1:{server.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def records(self) -> list[Record]:
        return spooled(self.folder)

    def send(
        self, kind: str, ident: str, body: bytes, *, time: str = "2026-05-01T12:00:00Z", **more: str
    ) -> httpx.Response:
        return self.http.post("/", content=body, headers=event_fields(kind, ident, time=time, **more))


def event_fields(kind: str, ident: str, **more: str) -> dict[str, str]:
    """A head as KServe's logger sends it."""
    attributes = {
        "specversion": "1.0",
        "id": ident,
        "type": kind,
        "source": "http://localhost:9081/",
        "inferenceservicename": "chat",
        "namespace": "team",
        "component": "predictor",
        "endpoint": "default",
        **more,
    }
    return {"content-type": "application/json", **{f"ce-{name}": value for name, value in attributes.items()}}


def spooled(folder: Path) -> list[Record]:
    """All records in the spool, in order."""
    batch = SpoolReader(folder / "spool" / SLOT).read(None, max_records=1_000_000, max_bytes=1 << 30)
    assert batch.corrupt == []
    return [decode(frame.payload) for frame in batch.frames]


def opened(folder: Path, door: OpenDoor, **options: Any) -> IntakeServer:
    """A server that listens on any free port."""
    options = {"port": 0, **options}
    config = IntakeConfig(spool_root=folder / "spool", journal=folder / "journal.db", **options)
    return IntakeServer.open(config, door, SystemClock())


@contextmanager
def running(folder: Path, rules: Rules = RULES, **options: Any) -> Iterator[Running]:
    """A server that runs while the block does."""
    stop, door = threading.Event(), OpenDoor(rules)
    server = opened(folder, door, **options)
    server.start(stop)
    run = Running(folder, server, door)
    try:
        yield run
    finally:
        run.http.close()
        stop.set()
        server.close()
    assert server.ended_well


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for what another thread or process brings about."""
    pause = threading.Event()
    for _ in range(int(limit_s / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError(f"not within {limit_s:g} s")


def main(folder: Path) -> None:
    """Serve until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = opened(folder, OpenDoor(), join_timeout_s=60)
    server.start(stop)
    (folder / "port.part").write_text(str(server.port))
    (folder / "port.part").replace(folder / "port")
    stop.wait()
    server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
