"""Writes the demo's ``servelens.yaml``: the file that a user would write for the same thing."""

from __future__ import annotations

import socket
from pathlib import Path

import yaml

ENDPOINT = "assistant"
EXPERIMENT = "too-hot"
PREFERRED_PROXY_PORT = 8080
PREFERRED_CONSOLE_PORT = 8050


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nobody listens on it, else a free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("unreachable: port 0 always binds")


def write_configuration(
    folder: Path, models_dir: Path, backend_url: str, model: str, proxy_port: int, console_port: int
) -> Path:
    """Write ``folder/servelens.yaml`` and return its path."""

    def entity(name: str, version: str, temperature: float) -> dict[str, object]:
        return {
            "name": name,
            "entity_version": version,
            "backend": {"urls": [backend_url], "model": model},
            "overrides": {"body": {"temperature": temperature}},
        }

    def evaluation(evaluator: str, target: str) -> dict[str, object]:
        return {"endpoint": ENDPOINT, "evaluator": evaluator, "every_s": 10, "options": {"target": target}}

    settings: dict[str, object] = {
        "data_dir": "data",
        "models_dir": str(models_dir),
        "proxy": {"port": proxy_port},
        "console": {"port": console_port},
        "collector": {"port": free_port()},
        "scheduler": {"port": free_port()},
        "endpoints": [
            {
                "name": ENDPOINT,
                "config": {
                    "served_entities": [entity("champion", "1", 0.5), entity("challenger", "2", 1.6)],
                    "traffic_config": {
                        "routes": [
                            {"served_entity_name": "champion", "traffic_percentage": 100},
                            {"served_entity_name": "challenger", "traffic_percentage": 0},
                        ]
                    },
                },
            }
        ],
        "experiments": [
            {
                "name": EXPERIMENT,
                "endpoint": ENDPOINT,
                "unit": "user",
                "control": {"served_entity": "champion", "weight": 50},
                "treatments": [{"served_entity": "challenger", "weight": 50}],
                "primary_metric": "score:perplexity",
                "secondary_metrics": ["latency_ms", "success_rate", "score:toxicity"],
                "guardrails": [{"metric": "latency_ms", "margin": 0.5}],
                "planned_units": 40,
            }
        ],
        "experiments_every_s": 10,
        "evaluations": [
            evaluation("toxicity", "request"),
            evaluation("toxicity", "response"),
            evaluation("perplexity", "response"),
        ],
        "drift": [{"endpoint": ENDPOINT, "granularity": "1 minute", "lag_s": 20, "every_s": 15}],
        "relabel": {
            "every_s": 5,
            "rules": [
                {
                    "endpoint": ENDPOINT,
                    "evaluator": "toxicity",
                    "target": "request",
                    "above": 0.5,
                    "priority": 1,
                },
                {
                    "endpoint": ENDPOINT,
                    "evaluator": "toxicity",
                    "target": "response",
                    "above": 0.5,
                    "priority": 2,
                },
                {"endpoint": ENDPOINT, "evaluator": "perplexity", "target": "response", "above": 500},
                {"endpoint": ENDPOINT, "kind": "feedback", "feedback": "thumbs", "below": 0.5},
                {"endpoint": ENDPOINT, "kind": "random", "fraction": 0.1},
            ],
        },
    }
    path = folder / "servelens.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path
