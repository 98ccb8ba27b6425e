"""Two schedulers on one database: one leads, the other takes over, and no record is scored twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from servelens.assembly.tables import build_catalog
from servelens.settings_file import load_settings
from tests.integration.system import free_port, wait_until
from tests.unit.evaluators.inference_rows import payload_rows
from tests.unit.evaluators.workers import misbehaving
from tests.unit.servelens.control_settings import backend

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0
NAME = "chat-misbehaving"


class Scheduler:
    """``servelens scheduler`` with a port of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        self.config = folder / f"{name}.yaml"
        evaluation = {"endpoint": "chat", "evaluator": "misbehaving", "every_s": 0.2}
        self.config.write_text(
            yaml.safe_dump(
                {
                    "data_dir": "data",
                    "scheduler": {"port": self.port},
                    "maintenance": {"enabled": False},
                    "endpoints": [{"name": "chat", "config": {"served_entities": [backend()]}}],
                    "evaluations": [evaluation],
                }
            )
        )
        path = os.pathsep.join([str(folder / "site"), str(REPOSITORY)])
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servelens", "scheduler", "--config", str(self.config)],
                env={**os.environ, "PYTHONPATH": path},
                stdout=output,
                stderr=output,
            )

    def status(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/health/ready")
        except httpx.HTTPError:
            return None
        assert answer.status_code == 200
        return str(answer.json()["status"])

    def metric(self, name: str, **labels: str) -> float | None:
        """Its value in the sample that has these labels."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None


@contextmanager
def running(folder: Path, name: str) -> Iterator[Scheduler]:
    scheduler = Scheduler(folder, name)
    try:
        yield scheduler
    finally:
        if scheduler.process.poll() is None:
            scheduler.process.terminate()
        scheduler.process.wait(60)


def test_after_kill_9_another_leads_within_15_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    misbehaving.install(tmp_path / "site")
    with running(tmp_path, "one") as one, running(tmp_path, "other") as other:
        wait_until(
            lambda: {one.status(), other.status()} == {"ok", "standby"},
            PATIENCE_S,
            "one leads, one stands by",
        )
        first, second = (one, other) if one.status() == "ok" else (other, one)
        assert first.metric("servelens_scheduler_leader") == 1.0
        assert second.metric("servelens_scheduler_leader") == 0.0
        tables = build_catalog(load_settings(first.config)).tables("chat")
        tables.payload.append(payload_rows(5, datetime.now(UTC)))
        wait_until(lambda: tables.scores.scan().collect().height == 5, PATIENCE_S, "the first scores")
        workers = psutil.Process(first.process.pid).children()
        assert len(workers) == 1

        os.kill(first.process.pid, signal.SIGKILL)
        killed = time.monotonic()
        tables.payload.append(payload_rows(7, datetime.now(UTC) - timedelta(seconds=30)))
        wait_until(lambda: second.status() == "ok", PATIENCE_S, "the second leads")
        assert time.monotonic() - killed < 15
        wait_until(lambda: tables.scores.scan().collect().height == 12, PATIENCE_S, "the second scores")
        assert not [worker for worker in workers if worker.is_running() and worker.status() != "zombie"]
        ids = tables.scores.scan().collect()["databricks_request_id"]
        assert ids.sort().equals(tables.payload.scan().collect()["databricks_request_id"].sort())
        lag = "servelens_evaluation_lag_seconds"
        wait_until(lambda: second.metric(lag, evaluation=NAME) == 0.0, PATIENCE_S, "no lag is left")
        rows = "servelens_evaluation_rows_total"
        wait_until(
            lambda: second.metric(rows, evaluation=NAME, outcome="scored") == 7.0,
            PATIENCE_S,
            "rows are counted",
        )
        second.process.terminate()
        assert second.process.wait(30) == 0
