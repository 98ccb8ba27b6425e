"""Portkey's open-source gateway (Node.js; https://github.com/Portkey-AI/gateway)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measuring import HEADERS
from benchmarks.peers.peer import Peer, Started


def start(home: Path, folder: Path, port: int, backend: str) -> Started:
    program = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    headers = {**HEADERS, "x-portkey-provider": "openai", "x-portkey-custom-host": f"{backend}/v1"}
    return Started(
        ("node", str(program), f"--port={port}", "--headless"),
        port,
        {"NODE_ENV": "production"},
        headers=headers,
    )


PEER = Peer(
    "portkey",
    "Node.js",
    "npm",
    "@portkey-ai/gateway",
    ("@portkey-ai/gateway@1.15.2",),
    "parses the body, reads provider and address from headers, maps body and answer; without its console, no "
    "cache, no retries, no guardrails",
    start,
)
