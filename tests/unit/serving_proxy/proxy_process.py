"""One proxy worker as a process: ``python -m tests.unit.serving_proxy.proxy_process PORT SLOT SPOOL BACKEND``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from serving_proxy.app import ProxyConfig, serve
from tests.unit.serving_proxy.running_proxy import one_entity


def main() -> int:
    port, slot, spool, backend = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    fixed = iter([one_entity(backend)])
    config = ProxyConfig(
        spool_root=Path(spool), slot=slot, port=int(port), graceful_s=5, log_invocations=True
    )
    return serve(config, lambda: next(fixed, None))


if __name__ == "__main__":
    sys.exit(main())
