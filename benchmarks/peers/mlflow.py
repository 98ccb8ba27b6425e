"""MLflow's AI gateway (Python; https://mlflow.org/docs/latest/genai/governance/ai-gateway/), the one that
``mlflow gateway start`` runs from a file.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Peer, Started

CONFIG = """
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: chat
      config:
        openai_api_key: sk-benchmark
        openai_api_base: {backend}/v1
"""


def start(home: Path, folder: Path, port: int, backend: str) -> Started:
    config = folder / "mlflow.yaml"
    config.write_text(CONFIG.format(backend=backend))
    command = (
        *(str(home / "bin" / "mlflow"), "gateway", "start", "--config-path", str(config)),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    )
    environment = {
        "PATH": f"{home / 'bin'}:/usr/bin:/bin",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GUNICORN_CMD_ARGS": "--timeout 0",  # a worker that was stopped meanwhile is not a hung one
    }
    return Started(command, port, environment)


PEER = Peer(
    "mlflow",
    "Python",
    "pypi",
    "mlflow",
    ("mlflow[gateway]==3.17.2",),
    "checks body and answer against its schema, looks the endpoint up; one worker, no tracing, no limits, no "
    "authentication",
    start,
)
