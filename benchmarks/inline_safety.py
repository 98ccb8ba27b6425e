"""What the ``safety`` guardrail adds to a call: ``python -m benchmarks.inline_safety``.

One proxy worker and one scorer with the offline toxicity model share core 0, backend and load share core 1. Calls come by
a Poisson process, 50 a second, each at its time whether or not those before have been answered, and no text comes twice.
Short blocks of three kinds alternate in one run: an endpoint without the guardrail, one that looks at requests, one that
looks at requests and answers. What is added is the difference between the percentiles of all calls of a kind and those
without. One in twenty texts is abusive: such a call must be answered 400 where requests are looked at. The machine needs
the prepared models (``servelens models prepare``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Final, NamedTuple

import uvloop

from benchmarks.measuring import (
    LOAD_CORE,
    PATH,
    PROXY_CORE,
    Server,
    Unusable,
    cpu_seconds,
    free_port,
    process,
    wait_for,
)

KINDS: Final = ("plain", "input", "both")
_OPENINGS: Final = ("Could you tell me", "I would like to know", "Please explain to my sister", "We wondered")
_SUBJECTS: Final = (
    *("how bread is baked", "why the sky is blue", "what a good salary is", "where the river begins"),
    *("which train goes to the coast", "when the museum opens", "how long the warranty lasts"),
    *("who wrote that old song", "what the doctor meant by it", "how to fix a flat tire"),
)
_ENDINGS: Final = (
    "as soon as you can",
    "in a few words",
    "for the children at school",
    "before we leave",
    "today",
)
_ABUSE: Final = (
    "You are a stupid idiot and I hate you",
    "Shut up you fucking moron",
    "You disgusting piece of shit",
)


class Wait(NamedTuple):
    """One call: seconds from when it was due, its status, whether its text was abusive."""

    seconds: float
    status: int
    is_abusive: bool


def main() -> int:
    parser = argparse.ArgumentParser(description="What the safety guardrail adds to a call")
    parser.add_argument("--rate", type=float, default=50.0, help="calls per second")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each block")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="inline-safety-") as folder:
            result = run(Path(folder), arguments.rate, arguments.rounds, arguments.seconds)
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


def run(folder: Path, rate: float, rounds: int, seconds: float) -> dict[str, float]:
    """All blocks; prints a table, gives the numbers of the last line."""
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise Unusable(f"cores {PROXY_CORE} and {LOAD_CORE} are needed")
    load_s = os.getloadavg()[0]
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, load before {load_s:.1f}; {rate:g} calls/s"
    )
    os.sched_setaffinity(0, {LOAD_CORE})
    chance = random.Random(7)
    numbers = count()
    waits: dict[str, list[Wait]] = {kind: [] for kind in KINDS}
    scorer_cpu = dict.fromkeys(KINDS, 0.0)
    with ExitStack() as stack:
        backend = stack.enter_context(start_backend(folder))
        scorer = stack.enter_context(start_scorer(folder))
        proxy = stack.enter_context(start_proxy(folder, backend.port, scorer.port))
        for kind in KINDS:  # warm
            uvloop.run(_load(proxy.port, kind, rate, 1.0, chance, numbers))
        batches = _batches(scorer.port)
        for number in range(rounds):
            for kind in KINDS if number % 2 == 0 else reversed(KINDS):
                before = cpu_seconds(scorer.process.pid)
                waits[kind] += uvloop.run(_load(proxy.port, kind, rate, seconds, chance, numbers))
                scorer_cpu[kind] += cpu_seconds(scorer.process.pid) - before
        after = _batches(scorer.port)
    return report(waits, scorer_cpu, rounds * seconds, [b - a for a, b in zip(batches, after, strict=True)])


def report(
    waits: dict[str, list[Wait]], scorer_cpu: dict[str, float], block_s: float, batches: list[float]
) -> dict[str, float]:
    """``batches``: how many texts in how many batches, seconds of computing, seconds of waiting for it to begin."""
    cuts = {}
    print(f"{'':6} {'calls':>6} {'p50 ms':>8} {'p99 ms':>8} {'scorer cores':>13} {'abusive let through':>20}")
    through = {}
    for kind, calls in waits.items():
        percentiles = quantiles([call.seconds for call in calls], n=100, method="inclusive")
        cuts[kind] = percentiles[49] * 1e3, percentiles[98] * 1e3
        through[kind] = sum(call.is_abusive and call.status == 200 for call in calls)
        print(
            f"{kind:6} {len(calls):6} {cuts[kind][0]:8.2f} {cuts[kind][1]:8.2f} "
            f"{scorer_cpu[kind] / block_s:13.2f} {through[kind]:12} of {sum(call.is_abusive for call in calls)}"
        )
    texts, number, computing_s, _ = batches
    print(f"batches: {number:.0f}, {texts / number:.2f} texts each, {computing_s / number * 1e3:.2f} ms each")
    failed = sum(call.status not in (200, 400) for calls in waits.values() for call in calls)
    refused = sum(call.status == 400 and not call.is_abusive for call in waits["input"])
    return {
        "added_p50_ms": round(cuts["input"][0] - cuts["plain"][0], 2),
        "added_p99_ms": round(cuts["input"][1] - cuts["plain"][1], 2),
        "both_added_p50_ms": round(cuts["both"][0] - cuts["plain"][0], 2),
        "both_added_p99_ms": round(cuts["both"][1] - cuts["plain"][1], 2),
        "scorer_cores": round(scorer_cpu["input"] / block_s, 3),
        "texts_per_batch": round(texts / number, 2),
        "batch_ms": round(computing_s / number * 1e3, 2),
        "abusive_let_through": through["input"] + through["both"],
        "ordinary_refused": refused,
        "failed": failed,
    }


@contextmanager
def start_backend(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.echo_backend"]
    with process(command, LOAD_CORE, folder / "backend") as running:
        assert running.stdout is not None
        port = int(running.stdout.readline() or 0)
        if not port:
            raise Unusable("the benchmark's backend did not start")
        yield Server("backend", port, port, running)


@contextmanager
def start_scorer(folder: Path) -> Iterator[Server]:
    port = free_port()
    config = folder / "servelens.yaml"
    config.write_text(f"data_dir: {folder / 'data'}\nscorer: {{port: {port}}}\n")
    command = [sys.executable, "-m", "servelens", "scorer", "--config", str(config)]
    with process(command, PROXY_CORE, folder / "scorer.log", output=False) as running:
        wait_for(port, running, folder / "scorer.log", patience_s=120.0)
        yield Server("scorer", port, port, running)


@contextmanager
def start_proxy(folder: Path, backend: int, scorer: int) -> Iterator[Server]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "benchmarks.safety_under_test", "--port", str(port)),
        *("--backend", f"http://127.0.0.1:{backend}", "--scorer", f"http://127.0.0.1:{scorer}"),
        *("--spool", str(folder / "spool")),
    ]
    with process(command, PROXY_CORE, folder / "proxy.log", output=False) as running:
        wait_for(port, running, folder / "proxy.log")
        yield Server("proxy", port, port, running)


def short_text(chance: random.Random, number: int, *, is_abusive: bool) -> str:
    """A sentence or two that has not been there before."""
    if is_abusive:
        return f"{chance.choice(_ABUSE)}, number {number}!"
    parts = [
        f"{chance.choice(_OPENINGS)} {chance.choice(_SUBJECTS)} {chance.choice(_ENDINGS)}"
        for _ in range(chance.randint(1, 3))
    ]
    return f"{', and '.join(parts)}? It is question {number}."


async def _load(
    port: int, kind: str, rate: float, seconds: float, chance: random.Random, numbers: Iterator[int]
) -> list[Wait]:
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    waits: list[Wait] = []

    async def call(due: float, request: bytes, *, is_abusive: bool) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        start = head.index(b"content-length:") + 15
        await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
        waits.append(Wait(time.monotonic() - due, int(head.split()[1]), is_abusive))
        idle.append((reader, writer))

    due = time.monotonic() + 0.05
    until = due + seconds
    calls = []
    while due < until:
        is_abusive = chance.random() < 0.05
        text = short_text(chance, next(numbers), is_abusive=is_abusive)
        body = json.dumps({"model": kind, "messages": [{"role": "user", "content": text}]}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        calls.append(asyncio.create_task(call(max(due, time.monotonic()), request, is_abusive=is_abusive)))
        due += chance.expovariate(rate)
    await asyncio.gather(*calls)
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    return waits


def _batches(port: int) -> list[float]:
    """Texts, batches, seconds of computing and of waiting, so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = []
    for name in ("batch_texts_sum", "batch_texts_count", "compute_seconds_sum", "wait_seconds_sum"):
        match = re.search(rf"^servelens_scorer_{name} (\S+)$", text, re.MULTILINE)
        if match is None:
            raise Unusable(f"the scorer does not say its {name}")
        found.append(float(match[1]))
    return found


if __name__ == "__main__":
    sys.exit(main())
