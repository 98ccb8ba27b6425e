"""sglang's gateway, Shepherd Model Gateway (Rust; https://github.com/smg-project/smg), in two ways.

In front of an OpenAI-compatible backend it reads the request. In front of sglang's own workers, with one
worker and a policy that does not look at the text, it passes bodies on unread, broken JSON too: that is
less than the others do, so it is measured but not compared.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.measuring import free_port
from benchmarks.peers.peer import Peer, Started

_REQUIREMENTS = ("smg==1.13.0",)


def start(home: Path, folder: Path, port: int, backend: str) -> Started:
    return _started(home, port, "--backend", "openai", "--worker-urls", backend)


def start_unread(home: Path, folder: Path, port: int, backend: str) -> Started:
    return _started(home, port, "--worker-urls", backend)


def _started(home: Path, port: int, *options: str) -> Started:
    command = (
        *(str(home / "bin" / "smg"), "launch", "--host", "127.0.0.1", "--port", str(port), *options),
        *("--policy", "round_robin", "--log-level", "error", "--disable-load-monitoring"),
        *("--disable-retries", "--history-backend", "none", "--prometheus-host", "127.0.0.1"),
        *("--prometheus-port", str(free_port())),
    )
    return Started(command, port)


PEER = Peer(
    "smg",
    "Rust",
    "pypi",
    "smg",
    _REQUIREMENTS,
    "checks the body, picks a worker (round robin), keeps Prometheus counters; no retries, no history, no "
    "authentication; can log a line per call, not its bodies",
    start,
)
UNREAD = Peer(
    "smg-unread",
    "Rust",
    "pypi",
    "smg",
    _REQUIREMENTS,
    "picks a worker (round robin), keeps Prometheus counters; no retries, no history, no authentication",
    start_unread,
    parses=False,
)
