"""What the collector's other ways in take on one core: ``python -m benchmarks.intake``.

The server runs in a process pinned to one core, the senders in this one on the other: pairs of CloudEvents of 600 + 600
bytes over kept connections, and exports of OTLP in protobuf, 100 spans each with 600 + 600 bytes of messages. Counted is what
was answered 200, so what is durable. The last line is a JSON object; ``cpu_us`` is the server's processor time (user and
system) for one event or span, which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.intake.rules import Rules, Target
from collector.intake.server import IntakeConfig, IntakeServer
from servelens.clock import SystemClock

_SPANS = 100
_TEXT = "word " * 100


class _Door:
    """Everybody may come in, and everything goes to one endpoint."""

    def caller(self, fields: object) -> str | None:
        return None

    def rules(self) -> Rules:
        return Rules({"chat": Target("chat")})


def main() -> int:
    parser = argparse.ArgumentParser(description="events per second of the collector's other ways in")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return _serve(arguments.serve)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results: dict[str, float] = {}
    for name, send in (("cloudevents", _send_events), ("otlp", _send_spans)):
        with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as (port, process):
            before, began = process.cpu_times(), time.monotonic()
            sent = _load(send, port, arguments.seconds, arguments.senders)
            took = time.monotonic() - began
            after = process.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        results |= {f"{name}_per_s": round(sent / took), f"{name}_cpu_us": round(1e6 * cpu_s / sent, 1)}
        print(
            f"{name:12} {sent / took:8.0f}/s {1e6 * cpu_s / sent:7.1f} µs CPU each, core {cpu_s / took:.0%} busy"
        )
    print(json.dumps(results))
    return 0


def _serve(folder: Path) -> int:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    config = IntakeConfig(spool_root=folder / "spool", journal=folder / "journal.db", port=0)
    server = IntakeServer.open(config, _Door(), SystemClock())
    stop = threading.Event()
    server.start(stop)
    print(server.port, flush=True)
    sys.stdin.read()
    stop.set()
    server.close()
    return 0


@contextmanager
def _server(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    command = [sys.executable, "-m", "benchmarks.intake", "--serve", str(folder)]
    every_core = set(range(os.cpu_count() or 1))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, every_core),
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), psutil.Process(process.pid)
        process.communicate()


def _load(
    send: Callable[[http.client.HTTPConnection, int, int], int], port: int, seconds: float, senders: int
) -> int:
    stop = threading.Event()
    counts = [0] * senders

    def run(sender: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        number = 0
        while not stop.is_set():
            number += 1
            counts[sender] += send(connection, sender, number)
        connection.close()

    threads = [threading.Thread(target=run, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts)


def _send_events(connection: http.client.HTTPConnection, sender: int, number: int) -> int:
    asked = {"model": "m", "messages": [{"role": "user", "content": _TEXT}]}
    said = {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": _TEXT}}]}
    for kind, body in (("request", asked), ("response", said)):
        fields = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": f"{sender}-{number}",
            "ce-type": f"org.kubeflow.serving.inference.{kind}",
            "ce-source": "http://localhost:9081/",
            "ce-time": "2026-05-01T12:00:00Z",
            "ce-inferenceservicename": "chat",
            "ce-namespace": "team",
            "ce-component": "predictor",
            "ce-endpoint": "default",
            "ce-metadata": "{}",
        }
        _post(connection, "/", json.dumps(body).encode(), fields)
    return 2


_EXPORT = ExportTraceServiceRequest()
_PLACE = _EXPORT.resource_spans.add()
_PLACE.resource.attributes.add(key="service.name").value.string_value = "chat"
_SCOPE = _PLACE.scope_spans.add()
for _ in range(_SPANS):
    _span = _SCOPE.spans.add(
        start_time_unix_nano=1_777_636_800_000_000_000, end_time_unix_nano=1_777_636_801_000_000_000
    )
    for _name, _role in (("gen_ai.input.messages", "user"), ("gen_ai.output.messages", "assistant")):
        _messages = [{"role": _role, "parts": [{"type": "text", "content": _TEXT}]}]
        _span.attributes.add(key=_name).value.string_value = json.dumps(_messages)
    for _name, _value in (("operation.name", "chat"), ("request.model", "m"), ("provider.name", "openai")):
        _span.attributes.add(key=f"gen_ai.{_name}").value.string_value = _value
    for _name in ("input_tokens", "output_tokens"):
        _span.attributes.add(key=f"gen_ai.usage.{_name}").value.int_value = 100


def _send_spans(connection: http.client.HTTPConnection, sender: int, number: int) -> int:
    export = ExportTraceServiceRequest()
    export.CopyFrom(_EXPORT)
    for place, span in enumerate(export.resource_spans[0].scope_spans[0].spans):
        span.trace_id = (sender + 1).to_bytes(8) + number.to_bytes(8)
        span.span_id = (place + 1).to_bytes(8)
    body = export.SerializeToString()
    _post(connection, "/v1/traces", body, {"content-type": "application/x-protobuf"})
    return _SPANS


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, fields: dict[str, str]) -> None:
    connection.request("POST", path, body, fields)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"answered {answer.status}: {content[:500]!r}")


if __name__ == "__main__":
    sys.exit(main())
