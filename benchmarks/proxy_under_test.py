"""Our proxy as the benchmarks run it: ``python -m benchmarks.proxy_under_test``.

One worker with everything on that a call has to pay for: API keys, an endpoint ``chat`` with two entities and an
experiment, two redacted JSON paths (which the benchmark's bodies do not have, so they are searched for in both),
metrics, and the spool at ``durability: process``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.experiment import Experiment, Variant
from serving_proxy.app import ProxyConfig, serve
from serving_proxy.authentication import Key, Keys, Requester, digest_of
from serving_proxy.endpoint import Backend, Endpoint, Route, ServedEntity
from serving_proxy.gateway import Gateway
from serving_proxy.routing import Snapshot

API_KEY = "sk-benchmark"


def snapshot(backend: str) -> Snapshot:
    """Two variants that one backend answers for, half and half."""
    entities = (
        ServedEntity("champion", Backend((backend,))),
        ServedEntity("challenger", Backend((backend,))),
    )
    endpoint = Endpoint(
        "chat",
        entities,
        (Route("champion", 90), Route("challenger", 10)),
        gateway=Gateway(redact_paths=("$.user", "$.metadata.email")),
    )
    requester = Requester("benchmark", frozenset({"invoke"}), "1")
    keys = Keys({digest_of(API_KEY.encode()): Key(requester)}, required=True)
    experiment = Experiment(
        name="ab",
        endpoint="chat",
        control=Variant("control", "champion", 50),
        treatments=(Variant("treatment", "challenger", 50),),
        primary_metric="latency_ms",
        unit="request",
    )
    return Snapshot.of([endpoint], [experiment], keys)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--spool", type=Path, required=True)
    arguments = parser.parse_args()
    fixed = iter([snapshot(arguments.backend)])
    config = ProxyConfig(spool_root=arguments.spool, port=arguments.port)
    return serve(config, lambda: next(fixed, None))


if __name__ == "__main__":
    sys.exit(main())
