"""Health checks and metrics of a process that serves nothing else."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily

from servelens.errors import Unavailable
from servelens.status_server import StatusServer


def server(port: int = 0, *, is_ready: bool = True) -> StatusServer:
    return StatusServer(
        "127.0.0.1",
        port,
        lambda: (is_ready, {"status": "ok" if is_ready else "degraded"}),
        lambda: [GaugeMetricFamily("things", "Things.", value=3)],
    )


def test_it_answers_health_and_metrics() -> None:
    with server() as running:
        base = f"http://127.0.0.1:{running.port}"
        assert httpx.get(f"{base}/health/live").json() == {"status": "ok"}
        assert httpx.get(f"{base}/health/ready").status_code == 200
        assert "things 3.0" in httpx.get(f"{base}/metrics").text
        assert httpx.get(f"{base}/nothing").status_code == 404


def test_a_process_that_does_not_work_is_not_ready() -> None:
    with server(is_ready=False) as running:
        assert httpx.get(f"http://127.0.0.1:{running.port}/health/ready").status_code == 503


def test_a_taken_port_is_said() -> None:
    with server() as running, pytest.raises(Unavailable, match="cannot listen on"):
        server(running.port)
