"""The worker that the chaos benchmark is about: ``python -m benchmarks.chaos_proxy``, endpoint ``chat`` with one
served entity of two replicas.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from serving_proxy.app import ProxyConfig, serve
from serving_proxy.endpoint import Backend, Endpoint, HealthCheck, Route, ServedEntity, Timeouts
from serving_proxy.routing import Snapshot

FIRST_BYTE_S: Final = 1.0


def snapshot(urls: tuple[str, ...]) -> Snapshot:
    """Defaults but for the deadline, which would be too long for a benchmark, and the time that a replica is out."""
    backend = Backend(
        urls,
        timeouts=Timeouts(connect_s=1.0, first_byte_s=FIRST_BYTE_S),
        health=HealthCheck(path="/health", interval_s=1.0, timeout_s=1.0, ejection_s=2.0),
    )
    return Snapshot.of([Endpoint("chat", (ServedEntity("only", backend),), (Route("only", 100),))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--backend", action="append", required=True)
    arguments = parser.parse_args()
    fixed = iter([snapshot(tuple(arguments.backend))])
    config = ProxyConfig(spool_root=arguments.spool, port=arguments.port)
    return serve(config, lambda: next(fixed, None))


if __name__ == "__main__":
    sys.exit(main())
