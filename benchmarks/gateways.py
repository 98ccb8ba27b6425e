"""What other gateways cost, beside nginx and us: ``python -m benchmarks.gateways [--install] [--peers …]``.

The same 600-byte chat call to the same instant backend, 32 connections, as much as each can take. Each
runs alone on core 0 (the others are stopped meanwhile, SIGSTOP), backend and load on core 1; rounds are
interleaved and medians taken. The others do as little as they can be told to: no logging, no retries, no
authentication (see each module in ``benchmarks/peers``). We run with everything on: authentication,
routing, assignment, redaction, telemetry and the spool.

``--install`` puts them into ``.peers``, one environment each, because their dependencies exclude each
other. What cannot be installed or started is in the table with the reason. The last line is a JSON object;
ratios are theirs over ours, medians of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import start_backend, start_nginx, start_proxy
from benchmarks.instant_backend import chat_body
from benchmarks.measuring import (
    HEADERS,
    LOAD_CORE,
    PROXY_CORE,
    Load,
    Server,
    Unusable,
    check_machine,
    free_port,
    measure_load,
    print_machine,
    process,
    wait_for,
    wrk_script,
)
from benchmarks.peers import ferrogw, litellm, mlflow, portkey, smg, tensorzero
from benchmarks.peers.peer import Peer, Started, clean_environment

PEERS = {
    peer.name: peer
    for peer in (
        *(smg.PEER, smg.UNREAD, ferrogw.PEER, tensorzero.PEER),
        *(mlflow.PEER, portkey.PEER, litellm.PEER),
    )
}
HOME = Path(__file__).parent.parent / ".peers"
START_S = 120.0
SERVE_S = 15.0
CALL_S = 20
WARM_S = 1.0


@dataclass
class Contender:
    """What is measured, and what was measured of it."""

    server: Server
    script: Path
    loads: list[Load] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        return median(load.cpu_us for load in self.loads)

    @property
    def per_second(self) -> float:
        return median(load.per_second for load in self.loads)

    @property
    def failed(self) -> int:
        return sum(load.failed for load in self.loads)


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU per call of other gateways, nginx and us")
    parser.add_argument("--install", action="store_true", help="install the gateways first")
    parser.add_argument("--peers", default=",".join(PEERS), help="which ones, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    arguments = parser.parse_args()
    try:
        peers = chosen(arguments.peers)
        check_machine()
        reasons = install(peers) if arguments.install else {}
        with tempfile.TemporaryDirectory(prefix="gateways-") as folder:
            print(json.dumps(run(Path(folder), peers, reasons, arguments.rounds, arguments.seconds)))
    except Unusable as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def chosen(names: str) -> list[Peer]:
    """The gateways of a comma-separated list."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in PEERS]
    if unknown or not wanted:
        raise Unusable(
            f"--peers: {', '.join(unknown) or 'nothing'} is unknown, use some of {', '.join(PEERS)}"
        )
    return [PEERS[name] for name in wanted]


def install(peers: Sequence[Peer]) -> dict[str, str]:
    """Install what is asked for; by name, why something is not there."""
    reasons: dict[str, str] = {}
    for peer in peers:
        if peer.is_installed(HOME / peer.package):
            continue
        print(f"installing {', '.join(peer.requirements)}", flush=True)
        try:
            peer.install(HOME / peer.package)
        except Unusable as problem:
            reasons[peer.name] = str(problem)
            print(f"{peer.name}: {problem}", file=sys.stderr)
    return reasons


def run(
    folder: Path, peers: Sequence[Peer], reasons: dict[str, str], rounds: int, seconds: float
) -> dict[str, Any]:
    """All rounds; prints the table, gives the last line."""
    print_machine()
    os.sched_setaffinity(0, {LOAD_CORE})
    contenders: list[Contender] = []
    with ExitStack() as stack:
        backend = stack.enter_context(start_backend(folder))
        for start in (start_nginx, start_proxy):
            server = stack.enter_context(start(folder, backend.port))
            contenders.append(prepared(folder, server, HEADERS, "chat"))
        for peer in peers:
            if peer.name in reasons:
                continue
            try:
                contenders.append(stack.enter_context(start_peer(folder, peer, backend.port)))
            except Unusable as problem:
                reasons[peer.name] = str(problem)
        stack.enter_context(stopped(contenders))
        for number in range(rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                name = contender.server.name
                try:
                    if name not in reasons:
                        measure(contender, seconds)
                except Unusable as problem:
                    if name not in PEERS:
                        raise
                    reasons[name] = str(problem)
    measured = [contender for contender in contenders if contender.server.name not in reasons]
    return report(measured, peers, reasons)


@contextmanager
def start_peer(folder: Path, peer: Peer, backend: int) -> Iterator[Contender]:
    """A running gateway that has answered one call rightly. Raises Unusable with the reason if it does not."""
    home = HOME / peer.package
    if peer.version(home) is None:
        raise Unusable("not installed (python -m benchmarks.gateways --install)")
    own = folder / peer.name
    own.mkdir()
    port = free_port()
    started = peer.start(home, own, port, f"http://127.0.0.1:{backend}")
    environment = clean_environment(own, started.environment)
    log = own / f"{peer.name}.log"
    with process(
        started.command, PROXY_CORE, log, environment=environment, folder=own, output=started.port is None
    ) as running:
        if started.port is None:
            port = printed_port(running, log)
        wait_for(port, running, log, START_S)
        server = Server(peer.name, port, port, running, started.path)
        check_answer(server, started)
        yield prepared(own, server, started.headers, started.model)


def printed_port(running: subprocess.Popen[bytes], log: Path) -> int:
    assert running.stdout is not None
    line = running.stdout.readline().strip()
    if not line.isdigit():
        lines = log.read_text(errors="replace").strip().splitlines()
        raise Unusable(f"did not start: {lines[-1] if lines else 'no message'}")
    return int(line)


def check_answer(server: Server, started: Started) -> None:
    """One call, whose answer must be the backend's; some listen for a while before they serve."""
    until = time.monotonic() + SERVE_S
    while problem := wrong_answer(server, started):
        if time.monotonic() > until:
            raise Unusable(problem)
        time.sleep(0.5)


def wrong_answer(server: Server, started: Started) -> str | None:
    """What is wrong with the answer to a call; ``None`` if nothing is."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=START_S)
    try:
        body = chat_body(stream=False, model=started.model)
        connection.request("POST", server.path, body, dict(started.headers))
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException) as error:
        return f"did not answer: {error}"
    finally:
        connection.close()
    if answer.status == 200 and b"Paris is the capital of France." in content:
        return None
    return f"answered {answer.status}: {content[:200].decode(errors='replace')}"


def prepared(folder: Path, server: Server, headers: Any, model: str) -> Contender:
    """The load's script; warm-up, and stopped until its turn comes."""
    script = folder / f"{server.name}.lua"
    script.write_text(wrk_script(chat_body(stream=False, model=model), headers))
    measure_load(server, script, WARM_S, patience_s=CALL_S)
    os.killpg(server.process.pid, signal.SIGSTOP)
    return Contender(server, script)


@contextmanager
def stopped(contenders: Sequence[Contender]) -> Iterator[None]:
    """At the end let all of them go on, so that they can end."""
    try:
        yield
    finally:
        for contender in contenders:
            os.killpg(contender.server.process.pid, signal.SIGCONT)


def measure(contender: Contender, seconds: float) -> None:
    group = contender.server.process.pid
    os.killpg(group, signal.SIGCONT)
    measure_load(contender.server, contender.script, WARM_S, patience_s=CALL_S)
    contender.loads.append(measure_load(contender.server, contender.script, seconds, patience_s=CALL_S))
    os.killpg(group, signal.SIGSTOP)


def report(contenders: Sequence[Contender], peers: Sequence[Peer], reasons: dict[str, str]) -> dict[str, Any]:
    measured = {contender.server.name: contender for contender in contenders}
    ours = measured["servelens"]
    versions = {peer.name: peer.version(HOME / peer.package) for peer in peers}
    ratios = {
        name: median(theirs.cpu_us / own.cpu_us for theirs, own in zip(each.loads, ours.loads, strict=True))
        for name, each in measured.items()
    }
    print(f"{'':12} {'version':>10} {'CPU µs/call':>12} {'to ours':>8} {'calls/s':>9} {'failed':>7}")
    for name in sorted(measured, key=lambda name: measured[name].cpu_us):
        each = measured[name]
        print(
            f"{name:12} {versions.get(name) or '':>10} {each.cpu_us:12.1f} {ratios[name]:8.2f} "
            f"{each.per_second:9.0f} {each.failed:7}"
        )
    for name, reason in reasons.items():
        print(f"{name:12} {versions.get(name) or '':>10} not measured: {reason}")
    for peer in peers:
        print(
            f"{peer.name} ({peer.language}): {peer.does}{'' if peer.parses else '; body unread, so not compared'}"
        )
    compared = [
        peer.name
        for peer in peers
        if peer.parses and peer.name in measured and not measured[peer.name].failed
    ]
    cheapest = min(compared, key=lambda name: measured[name].cpu_us, default=None)
    return {
        "cheapest_peer": cheapest,
        "cpu_ratio_to_cheapest_peer": None if cheapest is None else round(ratios[cheapest], 2),
        "cpu_us_per_call": {name: round(each.cpu_us, 1) for name, each in measured.items()},
        "cpu_ratio": {name: round(ratios[name], 2) for name in measured if name != "servelens"},
        "calls_per_second": {name: round(each.per_second) for name, each in measured.items()},
        "failed_calls": {name: each.failed for name, each in measured.items()},
        "versions": {name: version for name, version in versions.items() if version is not None},
        "not_measured": reasons,
    }


if __name__ == "__main__":
    sys.exit(main())
