"""Our proxy as the safety benchmark runs it: ``python -m benchmarks.safety_under_test``.

One worker with three endpoints that one backend answers for: ``plain``, ``input`` (requests are looked at) and ``both``
(answers too). The spool is at ``durability: process``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from serving_proxy.app import ProxyConfig, serve
from serving_proxy.endpoint import Backend, Endpoint, Gateway, Guardrails, Route, Safety, ServedEntity
from serving_proxy.routing import Snapshot


def snapshot(backend: str) -> Snapshot:
    """All three."""
    entity = ServedEntity("model", Backend((backend,)))
    safety = Guardrails(safety=Safety("block"))
    gateways = {
        "plain": Gateway(),
        "input": Gateway(input_guardrails=safety),
        "both": Gateway(input_guardrails=safety, output_guardrails=safety),
    }
    return Snapshot.of(
        [
            Endpoint(name, (entity,), (Route("model", 100),), gateway=gateway)
            for name, gateway in gateways.items()
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--scorer", required=True)
    parser.add_argument("--spool", type=Path, required=True)
    arguments = parser.parse_args()
    fixed = iter([snapshot(arguments.backend)])
    config = ProxyConfig(spool_root=arguments.spool, port=arguments.port, scorer_url=arguments.scorer)
    return serve(config, lambda: next(fixed, None))


if __name__ == "__main__":
    sys.exit(main())
