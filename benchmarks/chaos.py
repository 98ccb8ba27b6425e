"""What a client notices when replicas fail: ``python -m benchmarks.chaos``.

Two replicas, each a process, behind one proxy worker, a process with its spool; 200 calls a second, open loop, every
fourth a stream. One replica at a time is killed, hung (SIGSTOP), slowed (250 ms instead of 5), made to answer 503, or
to reset in the middle of the body; then it is made well again and the other one's turn comes.

- ``failed_requests``: non-streamed calls without their whole answer. ``failed_streams``: streams that did not begin.
  ``cut_streams`` had begun and broke off: nobody can save those without sending a part twice.
- ``added_p99_ms_during_fault``: the worst fault's p99 of non-streamed calls over that of the well phases of the same
  run (their median), the hung replica apart: ``hung_added_p99_ms``, to be compared with ``hung_deadline_ms``, because
  the first calls wait for that deadline (``hung_max_ms``). ``load_lag_p99_ms`` is how late the load itself was; when it
  is not small, the machine was busy with something else and the latencies say little.
- ``unrecorded_attempts``: calls that a replica has seen and that are not attempts in the spool's records, by request
  id, and answers in the records that no replica has given; ``unrecorded_requests`` are answers without a record.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import uvloop

from benchmarks.chaos_load import Call, Load
from benchmarks.chaos_proxy import FIRST_BYTE_S
from benchmarks.measuring import Unusable, free_port, wait_for
from collector.reader import SpoolReader
from collector.record import Record, decode

RATE: Final = 200.0
STREAM_EVERY: Final = 4
FAULTS: Final = ("killed", "hung", "slow", "unavailable", "reset")
WARM_S: Final = 2.0
SETTLE_S: Final = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Failed calls and latency while replicas fail")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the whole run")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            print(json.dumps(run(Path(folder), arguments.seconds)))
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


@dataclass(frozen=True, slots=True)
class Phase:
    """From when to when, in seconds from the beginning, which replica had which fault (``None``: all well)."""

    start_s: float
    stop_s: float
    fault: str | None


def plan(seconds: float) -> list[Phase]:
    """Each fault for the same time, and as long a time without one after it."""
    length = (seconds - WARM_S) / (2 * len(FAULTS))
    phases = [Phase(0.0, WARM_S, None)]
    for fault in FAULTS:
        start = phases[-1].stop_s
        phases += [Phase(start, start + length, fault), Phase(start + length, start + 2 * length, None)]
    return phases


def run(folder: Path, seconds: float) -> dict[str, float]:
    """The whole run; prints a table, gives the numbers of the last line."""
    phases = plan(seconds)
    port = free_port()
    with ExitStack() as stack:
        replicas = [stack.enter_context(replica(folder, number)) for number in range(2)]
        command = [sys.executable, "-m", "benchmarks.chaos_proxy", "--port", str(port)]
        command += ["--spool", str(folder / "spool")]
        for each in replicas:
            command += ["--backend", f"http://127.0.0.1:{each.port}"]
        with (folder / "proxy.log").open("wb") as log:
            proxy = subprocess.Popen(command, stderr=log)
        try:
            wait_for(port, proxy, folder / "proxy.log")
            load = Load(port, rate=RATE, stream_every=STREAM_EVERY)
            gc.disable()  # a pause of the load's own would look like one of the proxy's
            uvloop.run(_run(load, replicas, phases))
            gc.enable()
            time.sleep(FIRST_BYTE_S)  # for a replica that was hung to read what had been sent to it
        finally:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(60)
    return report(load.calls, phases, records_in(folder / "spool"), seen_in(folder))


async def _run(load: Load, replicas: list[Replica], phases: list[Phase]) -> None:
    started = time.monotonic() + 0.1
    loading = asyncio.create_task(load.run(started, phases[-1].stop_s))
    for number, phase in enumerate(phases):
        if phase.fault is not None:
            victim = replicas[number // 2 % 2]
            await asyncio.sleep(started + phase.start_s - time.monotonic())
            await asyncio.to_thread(victim.fail, phase.fault)
            await asyncio.sleep(started + phase.stop_s - time.monotonic())
            await asyncio.to_thread(victim.heal, phase.fault)
    await loading


class Replica:
    """One backend process and what can be done to it."""

    def __init__(self, folder: Path, number: int) -> None:
        self._seen = folder / f"seen-{number}"
        self._log = folder / f"replica-{number}.log"
        self.port = 0
        self._process = self._start()

    def fail(self, fault: str) -> None:
        if fault == "killed":
            self._process.kill()
            self._process.wait()
        elif fault == "hung":
            os.kill(self._process.pid, signal.SIGSTOP)
        else:
            self._tell(fault)

    def heal(self, fault: str) -> None:
        if fault == "killed":
            self._process = self._start()
        elif fault == "hung":
            os.kill(self._process.pid, signal.SIGCONT)
        else:
            self._tell("none")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.chaos_backend", "--port", str(self.port)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--seen", str(self._seen)], stdout=subprocess.PIPE, stderr=log
            )
        assert process.stdout is not None
        self.port = int(process.stdout.readline() or 0)
        process.stdout.close()
        if not self.port:
            raise Unusable(f"a replica did not start: {self._log.read_text()[-200:]}")
        return process

    def _tell(self, fault: str) -> None:
        uvloop.run(_put(self.port, f"/fault/{fault}"))


@contextmanager
def replica(folder: Path, number: int) -> Iterator[Replica]:
    running = Replica(folder, number)
    try:
        yield running
    finally:
        running.stop()


async def _put(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: replica\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


def records_in(spool: Path) -> list[Record]:
    """All records that the worker left."""
    (directory,) = (path for path in spool.iterdir() if path.is_dir())
    batch = SpoolReader(directory).read(None, max_records=10_000_000, max_bytes=1 << 40)
    if batch.corrupt:
        raise Unusable("the spool has corrupt frames")
    return [decode(frame.payload) for frame in batch.frames]


def seen_in(folder: Path) -> Counter[str]:
    """How often the replicas have seen each request id."""
    return Counter(line for path in folder.glob("seen-*") for line in path.read_text().split())


def report(
    calls: list[Call], phases: list[Phase], records: list[Record], seen: Counter[str]
) -> dict[str, float]:
    whole = [call for call in calls if not call.is_stream]
    streams = [call for call in calls if call.is_stream]
    well = [phase for phase in phases[1:] if phase.fault is None]
    base_ms = median(p99_ms(within(whole, phase, SETTLE_S)) for phase in well)
    print(
        f"{'':12} {'calls':>6} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'first chunk p99':>16}"
    )
    added: dict[str, float] = {}
    hung_max_ms = 0.0
    for phase in phases[1:]:
        those = within(whole, phase)
        latencies = sorted(call.answered_s * 1e3 for call in those)
        if phase.fault is not None:
            added[phase.fault] = p99_ms(those) - base_ms
            hung_max_ms = latencies[-1] if phase.fault == "hung" else hung_max_ms
        print(
            f"{phase.fault or '(well)':12} {len(those):6} {sum(not call.complete for call in those):7} "
            f"{latencies[len(latencies) // 2]:8.1f} {p99_ms(those):8.1f} {latencies[-1]:8.1f} "
            f"{p99_ms(within(streams, phase)):16.1f}"
        )
    problems = Counter(f"{call.status} {call.problem}" for call in whole if not call.complete)
    for problem, count in problems.most_common(5):
        print(f"failed: {count} x {problem}")
    recorded = Counter({record.request_id: record.attempts for record in records})
    answered = Counter(
        record.request_id for record in records for each in record.attempt_details if each.status is not None
    )
    unrecorded = (seen - recorded).total() + (answered - seen).total()
    outcomes = Counter(
        f"{each.status or '-'} {each.error_type or ''}"
        for record in records
        for each in record.attempt_details
    )
    print("attempts:", ", ".join(f"{count} x {what.strip()}" for what, count in outcomes.most_common()))
    return {
        "failed_requests": sum(not call.complete for call in whole),
        "failed_streams": sum(not call.begun for call in streams),
        "cut_streams": sum(call.begun and not call.complete for call in streams),
        "added_p99_ms_during_fault": round(max(ms for fault, ms in added.items() if fault != "hung"), 1),
        "well_p99_ms": round(base_ms, 1),
        "load_lag_p99_ms": round(quantiles([call.lag_s * 1e3 for call in calls], n=100)[98], 1),
        "hung_added_p99_ms": round(added["hung"], 1),
        "hung_max_ms": round(hung_max_ms, 1),
        "hung_deadline_ms": FIRST_BYTE_S * 1e3,
        "requests": len(calls),
        "attempts": sum(recorded.values()),
        "unrecorded_attempts": unrecorded,
        "unrecorded_requests": max(0, sum(call.status > 0 for call in calls) - len(records)),
    }


def within(calls: list[Call], phase: Phase, settle_s: float = 0.0) -> list[Call]:
    """The calls that were due in a phase, without its first ``settle_s``."""
    return [call for call in calls if phase.start_s + settle_s <= call.due_s < phase.stop_s]


def p99_ms(calls: list[Call]) -> float:
    latencies = [call.answered_s * 1e3 for call in calls]
    return quantiles(latencies, n=100, method="inclusive")[98] if len(latencies) > 1 else 0.0


if __name__ == "__main__":
    sys.exit(main())
