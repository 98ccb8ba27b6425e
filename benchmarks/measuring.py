"""What the benchmarks share: processes pinned to a core, their CPU time, and load by wrk.

The measured process has core 0 to itself, backend and load share core 1. CPU is user + system time of all
processes of what is measured, children included, from /proc/PID/stat (proc(5)).
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import uvloop

PATH = "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-benchmark"}
PROXY_CORE, LOAD_CORE = 0, 1
CONNECTIONS = 32
TICKS = os.sysconf("SC_CLK_TCK")

WRK = """
wrk.method = "POST"
{headers}
wrk.body = [=[{body}]=]
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.duration, failed))
end
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A proxy under test (or the backend itself): where it listens and what it costs."""

    name: str
    port: int
    stream_port: int
    process: subprocess.Popen[bytes]
    path: str = PATH


class Load(NamedTuple):
    """One measurement at saturation: how many calls, CPU µs of each, calls per second, how many failed."""

    calls: int
    cpu_us: float
    per_second: float
    failed: int


class Unusable(Exception):
    """The benchmark cannot run here; the message is one line for a person."""


def check_machine() -> None:
    for program, package in (("nginx", "nginx"), ("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            raise Unusable(f"{program} is not installed (Debian package {package!r})")
    available = os.sched_getaffinity(0)
    if not {PROXY_CORE, LOAD_CORE} <= available:
        raise Unusable(
            f"cores {PROXY_CORE} and {LOAD_CORE} are needed, this process may use {sorted(available)}"
        )


def wrk_script(body: bytes, headers: Mapping[str, str] = HEADERS) -> str:
    """A wrk script that POSTs ``body`` and ends with a line ``RESULT calls microseconds failed``."""
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    return WRK.format(body=body.decode(), headers=lines)


def measure_load(server: Server, script: Path, seconds: float, *, patience_s: int = 2) -> Load:
    """Load from 32 connections, as much as the server takes. A call that takes ``patience_s`` has failed."""
    before = cpu_seconds(server.process.pid)
    done = subprocess.run(
        [
            *("taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}"),
            *(f"-d{max(1, round(seconds))}s", "--timeout", f"{patience_s}s"),
            *("-s", str(script), f"http://127.0.0.1:{server.port}{server.path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    used = cpu_seconds(server.process.pid) - before
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Unusable(f"wrk gave no result: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    count, micros, failed = (int(field) for field in line.split()[1:])
    if not count:
        raise Unusable(f"{server.name}: none of the calls was answered")
    return Load(count, used / count * 1e6, count / (micros / 1e6), failed)


def cpu_seconds(pid: int) -> float:
    """User + system time of a process and all its descendants, waited-for ones included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(path.parent.name)
        parents[number] = int(fields[1])
        ticks[number] = sum(int(field) for field in fields[11:15])

    def belongs(number: int) -> bool:
        while number in parents and number != pid:
            number = parents[number]
        return number == pid

    return sum(count for number, count in ticks.items() if belongs(number)) / TICKS


@contextmanager
def process(
    command: Sequence[str],
    core: int,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, in a session of its own; what it says goes to ``log``, standard output to a pipe
    if ``output``.
    """
    with log.open("wb") as errors:
        running = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=subprocess.PIPE if output else errors,
            stderr=errors,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        with suppress(ProcessLookupError):  # children that it left behind
            os.killpg(running.pid, signal.SIGKILL)
        if running.stdout is not None:
            running.stdout.close()


def wait_for(port: int, running: subprocess.Popen[bytes], log: Path, patience_s: float = 30.0) -> None:
    """Wait until something listens on ``port``. Raises Unusable with the log's last line."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until and running.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise Unusable(f"{log.stem} did not start: {lines[-1] if lines else 'no message'}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def print_machine() -> None:
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr.strip()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    print(
        f"machine: {model}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, uvloop {uvloop.__version__}, {version}"
    )
