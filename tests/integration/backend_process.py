"""The test backend in a process of its own, so that it does not share a core's interpreter lock with the load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def backend_process() -> Iterator[str]:
    """Run ``python -m tests.backends`` and give its address."""
    command = [sys.executable, "-m", "tests.backends", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def endpoint(name: str, url: str, entities: Mapping[str, float] | None = None, **more: Any) -> dict[str, Any]:
    """Settings of an endpoint whose served entities (name to share) all answer from ``url``."""
    shares = entities or {"champion": 100.0}
    return {
        "name": name,
        "config": {
            "served_entities": [{"name": entity, "backend": {"urls": [url]}} for entity in shares],
            "traffic_config": {
                "routes": [
                    {"served_entity_name": entity, "traffic_percentage": share}
                    for entity, share in shares.items()
                ]
            },
        },
        **more,
    }
