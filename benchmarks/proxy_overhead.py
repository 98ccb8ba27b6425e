"""What the proxy costs, against nginx doing the nearest thing: ``python -m benchmarks.proxy_overhead``.

nginx (one worker, keep-alive to the backend, an access log with every request's body) and our proxy (one
worker, routing, an experiment, the spool at ``durability: process``) run one after the other, each alone
on core 0; backend and load share core 1. Rounds alternate and medians are taken, because other work on
the machine moves absolute numbers far more than ratios. CPU is user + system time of all processes,
children included, from /proc/PID/stat.

- calls: 600-byte chat request and answer, wrk with 32 connections, as many as it can.
- streams: 32 at a time, each of 32 chunks 2 ms apart.
- latency: 200 calls per second, each at its time whether or not the one before has been answered; what is
added is the difference to the same load sent straight to the backend, in the same round.

nginx cannot log answers without a scripting module, so it logs less than we do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import uvloop

from benchmarks.contenders import start_backend, start_nginx, start_proxy
from benchmarks.instant_backend import chat_body
from benchmarks.measuring import (
    LOAD_CORE,
    PATH,
    Server,
    Unusable,
    check_machine,
    cpu_seconds,
    measure_load,
    print_machine,
    wrk_script,
)

STREAMS_AT_ONCE = 32
LATENCY_RATE = 200


def main() -> int:
    parser = argparse.ArgumentParser(
        description="CPU, throughput and added latency of the proxy against nginx"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    arguments = parser.parse_args()
    try:
        check_machine()
        with tempfile.TemporaryDirectory(prefix="proxy-overhead-") as folder:
            print(json.dumps(run(Path(folder), arguments.rounds, arguments.seconds)))
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def run(folder: Path, rounds: int, seconds: float) -> dict[str, float]:
    """All rounds; prints tables, gives the numbers of the last line."""
    print_machine()
    os.sched_setaffinity(0, {LOAD_CORE})
    script = folder / "call.lua"
    script.write_text(wrk_script(chat_body(stream=False)))
    calls: dict[str, list[tuple[float, float]]] = {"nginx": [], "servelens": []}
    streams: dict[str, list[float]] = {"nginx": [], "servelens": []}
    waits: dict[str, list[tuple[float, float]]] = {"direct": [], "nginx": [], "servelens": []}
    with ExitStack() as stack:
        backend = stack.enter_context(start_backend(folder))
        nginx = stack.enter_context(start_nginx(folder, backend.port))
        proxy = stack.enter_context(start_proxy(folder, backend.port))
        for server in (nginx, proxy):
            measure_calls(server, script, 0.5)  # warm
        for number in range(rounds):
            for server in (nginx, proxy) if number % 2 == 0 else (proxy, nginx):
                calls[server.name].append(measure_calls(server, script, seconds))
                streams[server.name].append(measure_streams(server, seconds))
            for server in (backend, nginx, proxy):
                waits[server.name].append(measure_latency(server, seconds))
    return report(calls, streams, waits)


def report(
    calls: dict[str, list[tuple[float, float]]],
    streams: dict[str, list[float]],
    waits: dict[str, list[tuple[float, float]]],
) -> dict[str, float]:
    cpu = {name: median(each[0] for each in values) for name, values in calls.items()}
    rate = {name: median(each[1] for each in values) for name, values in calls.items()}
    stream_cpu = {name: median(values) for name, values in streams.items()}
    added = {
        name: [
            median(
                there[which] - direct[which]
                for there, direct in zip(waits[name], waits["direct"], strict=True)
            )
            for which in (0, 1)
        ]
        for name in ("nginx", "servelens")
    }
    print(
        f"{'':10} {'CPU µs/call':>12} {'calls/s':>9} {'CPU µs/stream':>14} {'added p50 ms':>13} {'added p99 ms':>13}"
    )
    for name in ("nginx", "servelens"):
        print(
            f"{name:10} {cpu[name]:12.1f} {rate[name]:9.0f} {stream_cpu[name]:14.0f} "
            f"{added[name][0]:13.3f} {added[name][1]:13.3f}"
        )
    ratios = [ours[0] / theirs[0] for ours, theirs in zip(calls["servelens"], calls["nginx"], strict=True)]
    stream_ratios = [
        ours / theirs for ours, theirs in zip(streams["servelens"], streams["nginx"], strict=True)
    ]
    return {
        "cpu_ratio": round(median(ratios), 3),
        "stream_cpu_ratio": round(median(stream_ratios), 3),
        "added_p50_ms": round(added["servelens"][0], 3),
        "added_p99_ms": round(added["servelens"][1], 3),
        "requests_per_second": round(rate["servelens"]),
        "nginx_requests_per_second": round(rate["nginx"]),
    }


def measure_calls(server: Server, script: Path, seconds: float) -> tuple[float, float]:
    """CPU µs per call, and calls per second, at saturation."""
    load = measure_load(server, script, seconds)
    if load.failed:
        raise Unusable(f"{server.name}: {load.failed} calls failed")
    return load.cpu_us, load.per_second


def measure_streams(server: Server, seconds: float) -> float:
    """CPU µs per stream, with 32 at a time."""
    before = cpu_seconds(server.process.pid)
    count = uvloop.run(_run_streams(server.stream_port, seconds))
    return (cpu_seconds(server.process.pid) - before) / count * 1e6


async def _run_streams(port: int, seconds: float) -> int:
    request = _http(chat_body(stream=True), port)
    until = time.monotonic() + seconds

    async def loop() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.monotonic() < until:
            writer.write(request)
            received = await reader.readuntil(b"0\r\n\r\n")
            if b"[DONE]" not in received:
                raise Unusable(f"a stream on port {port} did not end: {received[:200]!r}")
            count += 1
        writer.close()
        await writer.wait_closed()
        return count

    return sum(await asyncio.gather(*(loop() for _ in range(STREAMS_AT_ONCE))))


def measure_latency(server: Server, seconds: float) -> tuple[float, float]:
    """p50 and p99 in milliseconds at 200 calls per second, open loop."""
    waits = uvloop.run(_run_latency(server.port, max(1.0, seconds)))
    cuts = quantiles(waits, n=100, method="inclusive")
    return cuts[49] * 1e3, cuts[98] * 1e3


async def _run_latency(port: int, seconds: float) -> list[float]:
    request = _http(chat_body(stream=False), port)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for _ in range(8):
        idle.append(await asyncio.open_connection("127.0.0.1", port))
    waits: list[float] = []

    async def call(due: float) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        start = head.lower().index(b"content-length:") + 15
        await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
        waits.append(time.monotonic() - due)
        idle.append((reader, writer))

    start = time.monotonic() + 0.05
    calls = []
    for number in range(round(seconds * LATENCY_RATE)):
        due = start + number / LATENCY_RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        calls.append(asyncio.create_task(call(max(due, time.monotonic()))))
    await asyncio.gather(*calls)
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    return waits[len(waits) // 10 :]  # the first ones open connections over there


def _http(body: bytes, port: int) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer sk-benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    sys.exit(main())
