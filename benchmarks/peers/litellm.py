"""LiteLLM's proxy (Python; https://docs.litellm.ai)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Peer, Started

CONFIG = """
model_list:
  - model_name: chat
    litellm_params:
      model: openai/chat
      api_base: {backend}/v1
      api_key: sk-benchmark
litellm_settings:
  telemetry: false
  num_retries: 0
general_settings:
  disable_spend_logs: true
"""


def start(home: Path, folder: Path, port: int, backend: str) -> Started:
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(backend=backend))
    command = (
        *(str(home / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"),
        *("--port", str(port), "--num_workers", "1"),
    )
    environment = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "NO_DOCS": "True",
    }
    return Started(command, port, environment)


PEER = Peer(
    "litellm",
    "Python",
    "pypi",
    "litellm",
    ("litellm[proxy]==1.106.2",),
    "parses body and answer into its own types, routes among deployments, counts cost; one worker, no data "
    "base, no spend log, no retries, no authentication",
    start,
)
