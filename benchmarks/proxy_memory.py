"""Whether one worker's memory grows with what it has served: ``python -m benchmarks.proxy_memory``.

After a warm-up, resident memory (VmRSS) is compared with that after a million calls, and after 10,000
streams of which a third are cut by the client in the middle, half of these with a reset. The spool is on,
and its sealed segments are deleted as a collector would once it has committed them. The last line is a
JSON object; ``rss_growth`` is the largest growth over the end of the warm-up at any of the points, 0.05
being 5 %. ``peak_growth`` says the same of the highest memory in between (VmHWM).

Source of the two numbers and of resetting the peak: proc_pid_status(5), proc_pid_clear_refs(5).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from benchmarks.contenders import start_backend, start_proxy
from benchmarks.instant_backend import CHUNKS, chat_body
from benchmarks.measuring import (
    CONNECTIONS,
    HEADERS,
    LOAD_CORE,
    PATH,
    Server,
    Unusable,
    check_machine,
    measure_load,
    print_machine,
    wrk_script,
)
from collector.reader import SpoolReader
from collector.worker_directory import WorkerDirectory

_DELETE_EVERY_S = 0.5
_LOAD_S = 5.0
_SETTLE_S = 2.0
_PATIENCE_S = 30.0
_RESET_PEAK = "5"


def main() -> int:
    parser = argparse.ArgumentParser(description="growth of one worker's memory over calls and streams")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--warm-calls", type=int, default=100_000)
    parser.add_argument("--warm-streams", type=int, default=1_000)
    arguments = parser.parse_args()
    try:
        check_machine()
        with tempfile.TemporaryDirectory(prefix="proxy-memory-") as folder:
            print(json.dumps(run(Path(folder), arguments)))
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def run(folder: Path, wanted: argparse.Namespace) -> dict[str, float]:
    """Warm up, load, look; gives the numbers of the last line."""
    print_machine()
    os.sched_setaffinity(0, {LOAD_CORE})
    script = folder / "call.lua"
    script.write_text(wrk_script(chat_body(stream=False)))
    chance = random.Random(0)
    with ExitStack() as stack:
        backend = stack.enter_context(start_backend(folder))
        proxy = stack.enter_context(start_proxy(folder, backend.port))
        deleted = stack.enter_context(sealed_segments_deleted(folder / "spool"))
        run_calls(proxy, script, wanted.warm_calls)
        uvloop.run(run_streams(proxy.port, wanted.warm_streams, chance))
        start = settled_memory(proxy)
        Path(f"/proc/{proxy.process.pid}/clear_refs").write_text(_RESET_PEAK)
        calls = run_calls(proxy, script, wanted.calls)
        after_calls = settled_memory(proxy)
        cut = uvloop.run(run_streams(proxy.port, wanted.streams, chance))
        end = settled_memory(proxy)
        peak = memory(proxy, "VmHWM")
    print(
        f"{start:.1f} MB after the warm-up, {after_calls:.1f} MB after {calls} calls, "
        f"{end:.1f} MB after {wanted.streams} streams; {len(deleted)} times segments were deleted"
    )
    return {
        "rss_growth": round(max(after_calls, end) / start - 1, 4),
        "rss_growth_calls": round(after_calls / start - 1, 4),
        "rss_growth_streams": round(end / after_calls - 1, 4),
        "peak_growth": round(peak / start - 1, 4),
        "rss_start_mb": round(start, 1),
        "rss_after_calls_mb": round(after_calls, 1),
        "rss_end_mb": round(end, 1),
        "peak_mb": round(peak, 1),
        "calls": calls,
        "streams": wanted.streams,
        "streams_cut": cut,
    }


def run_calls(proxy: Server, script: Path, count: int) -> int:
    """At least ``count`` calls, as fast as they are answered; how many it were. Prints memory on the way."""
    done = 0
    while done < count:
        load = measure_load(proxy, script, _LOAD_S if count - done > 20_000 else 2.0, patience_s=20)
        if load.failed:
            raise Unusable(f"{load.failed} calls failed")
        done += load.calls
        print(f"{done:9} calls  {memory(proxy, 'VmRSS'):7.1f} MB", flush=True)
    return done


async def run_streams(port: int, count: int, chance: random.Random) -> int:
    """``count`` streams, 32 at a time, every third left in its middle; how many were left."""
    left = iter(range(count))
    cut = 0

    async def loop() -> None:
        nonlocal cut
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            async with asyncio.timeout(_PATIENCE_S):
                writer.write(request)
                if number % 3 == 0:
                    for _ in range(chance.randrange(1, CHUNKS)):
                        await reader.readuntil(b"\n\n")
                    cut += 1
                    if number % 2:
                        writer.transport.abort()
                    else:
                        writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                elif b"[DONE]" not in await reader.readuntil(b"0\r\n\r\n"):
                    raise Unusable("a stream did not end")
        writer.close()
        await writer.wait_closed()

    request = _stream_request(port)
    await asyncio.gather(*(loop() for _ in range(CONNECTIONS)))
    return cut


def _stream_request(port: int) -> bytes:
    body = chat_body(stream=True)
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def settled_memory(proxy: Server) -> float:
    """Resident memory in MB when what was begun has ended."""
    time.sleep(_SETTLE_S)
    return memory(proxy, "VmRSS")


def memory(proxy: Server, field: str) -> float:
    """A field of /proc/PID/status in MB."""
    try:
        status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    except OSError as error:
        raise Unusable(f"the proxy has ended: {error.strerror}") from error
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


@contextmanager
def sealed_segments_deleted(spool: Path) -> Iterator[list[int]]:
    """Delete what is sealed, now and then, in all workers' spools; counts the times."""
    stop = threading.Event()
    deleted: list[int] = []

    def delete() -> None:
        while not stop.wait(_DELETE_EVERY_S):
            for directory in spool.iterdir():
                offsets = WorkerDirectory(directory).first_offsets()
                if len(offsets) > 1:
                    deleted.append(SpoolReader(directory).delete_through(offsets[-1] - 1))

    thread = threading.Thread(target=delete, name="deleter")
    thread.start()
    try:
        yield deleted
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
