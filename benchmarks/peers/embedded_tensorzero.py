"""Run TensorZero's embedded HTTP gateway until told to stop; prints its port. Runs in TensorZero's own
environment: ``python embedded_tensorzero.py CONFIG``.
"""

from __future__ import annotations

import importlib
import signal
import sys
from urllib.parse import urlsplit


def main() -> int:
    tensorzero = importlib.import_module("tensorzero")
    gateway = tensorzero._start_http_gateway(
        config_file=sys.argv[1],
        clickhouse_url=None,
        postgres_url=None,
        valkey_url=None,
        async_setup=False,
    )
    print(urlsplit(gateway.base_url).port, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main())
