"""Ferro Labs AI Gateway (Go; https://github.com/ferro-labs/ai-gateway)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Peer, Started

CONFIG = """
strategy:
  mode: single
targets:
  - virtual_key: openai
    models: [chat]
"""


def start(home: Path, folder: Path, port: int, backend: str) -> Started:
    config = folder / "ferrogw.yaml"
    config.write_text(CONFIG)
    environment = {
        "PORT": str(port),
        "GATEWAY_CONFIG": str(config),
        "OPENAI_API_KEY": "sk-benchmark",
        "OPENAI_BASE_URL": backend,
        "MASTER_KEY": "fgw_" + "0123456789abcdef" * 2,
        "ALLOW_UNAUTHENTICATED_PROXY": "true",
        "RATE_LIMIT_RPS": "0",  # it refuses most of the load otherwise
        "LOG_LEVEL": "error",
    }
    return Started((str(home / "bin" / "ferrogw"), "serve"), port, environment)


PEER = Peer(
    "ferrogw",
    "Go",
    "pypi",
    "ferrogw",
    ("ferrogw==1.5.10",),
    "parses body and answer into its own types, looks the model up, counts cost and metrics; no plug-ins, no "
    "request log, no authentication",
    start,
)
