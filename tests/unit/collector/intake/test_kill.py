"""SIGKILL: what was answered is there afterwards, once, whatever was being done at that moment."""

from __future__ import annotations

import http.client
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.unit.collector.intake.exports import PROTOBUF, as_protobuf
from tests.unit.collector.intake.running import REQUEST, RESPONSE, event_fields, spooled, until

KILLS = 3
SENDERS = 3


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A server in a process of its own, and its port."""
    (folder / "port").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.unit.collector.intake.running", str(folder)]
    process = subprocess.Popen(command)
    until(lambda: (folder / "port").exists() or process.poll() is not None, 60)
    return process, int((folder / "port").read_text())


def send(port: int, kind: str, ident: str, body: bytes) -> int:
    return httpx.post(
        f"http://127.0.0.1:{port}/", content=body, headers=event_fields(kind, ident)
    ).status_code


def test_halves_outlive_kills_and_meet_each_other(tmp_path: Path) -> None:
    bodies = {REQUEST: b'{"messages": []}', RESPONSE: b'{"choices": []}'}
    orders = {"1": (REQUEST, RESPONSE), "2": (RESPONSE, REQUEST)}

    def send_all(port: int, *places: int) -> None:
        for ident, order in orders.items():
            for place in places:
                assert send(port, order[place], ident, bodies[order[place]]) == 200

    process, port = start(tmp_path)
    send_all(port, 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process, port = start(tmp_path)
    send_all(port, 0, 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process, port = start(tmp_path)
    send_all(port, 0, 1)
    process.terminate()
    assert process.wait(30) == 0
    records = spooled(tmp_path)
    assert [record.client_request_id for record in records] == ["1", "2"]
    assert {(record.request, record.response) for record in records} == {(bodies[REQUEST], bodies[RESPONSE])}


class Sender(threading.Thread):
    """Sends pairs of events and exports of spans, each until it is answered."""

    def __init__(self, number: int, port: list[int], stop: threading.Event) -> None:
        super().__init__()
        self.answered: set[str] = set()
        self._number = number
        self._port = port
        self._stop_sending = stop

    def run(self) -> None:
        count = 0
        while not self._stop_sending.is_set():
            count += 1
            ident = f"{self._number}-{count}"
            kinds = [REQUEST, RESPONSE] if count % 2 else [RESPONSE, REQUEST]
            if all(self._insist(event_fields(kind, ident), ident.encode(), "/") for kind in kinds):
                self.answered.add(ident)
            export = as_protobuf(3)
            for place, span in enumerate(export.resource_spans[0].scope_spans[0].spans):
                span.trace_id = self._number.to_bytes(8) + count.to_bytes(8)
                span.span_id = (place + 1).to_bytes(8)
            if self._insist(PROTOBUF, export.SerializeToString(), "/v1/traces"):
                self.answered |= {f"{self._number}-{count}-span-{place + 1}" for place in range(3)}

    def _insist(self, fields: dict[str, str], body: bytes, path: str) -> bool:
        while not self._stop_sending.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port[0], timeout=20)
            try:
                connection.request("POST", path, body, fields)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    return True
            except (OSError, http.client.HTTPException):
                self._stop_sending.wait(0.02)  # nobody listens for a moment
            finally:
                connection.close()
        return False


def test_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    process, first_port = start(tmp_path)
    port = [first_port]
    senders = [Sender(number, port, stop) for number in range(1, SENDERS + 1)]
    for sender in senders:
        sender.start()
    chance = random.Random(5)
    try:
        for _ in range(KILLS):
            before = sum(len(sender.answered) for sender in senders)
            until(lambda before=before: sum(len(s.answered) for s in senders) > before + 30, 60)  # type: ignore[misc]
            stop.wait(chance.uniform(0.0, 0.2))  # the moment of the kill is what is random here
            process.kill()
            process.wait()
            process, port[0] = start(tmp_path)
        before = sum(len(sender.answered) for sender in senders)
        until(lambda: sum(len(s.answered) for s in senders) > before + 30, 60)
    finally:
        stop.set()
        for sender in senders:
            sender.join()
        process.terminate()
    assert process.wait(30) == 0
    ids: list[str] = []
    for record in spooled(tmp_path):
        if record.trace_id is None:
            ident = record.client_request_id or ""
            assert (record.request, record.response) == (ident.encode(), ident.encode())
        else:
            number, count = int(record.trace_id[:16], 16), int(record.trace_id[16:], 16)
            ident = f"{number}-{count}-span-{int(record.tags['span_id'], 16)}"
        ids.append(ident)
    assert len(ids) == len(set(ids))
    assert set().union(*(sender.answered for sender in senders)) <= set(ids)
