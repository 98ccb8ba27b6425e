"""``servelens alert …`` as a user runs it, and the scheduler's jobs from a settings file."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from evaluators.runs.schedule import Schedule
from servelens.assembly.alerts import alert_jobs
from servelens.assembly.database import build_database
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.errors import Conflict, Invalid, Missing
from servelens.settings_file import load_settings
from tests.unit.evaluators.alerts.receivers import HttpSink, http_sink
from tests.unit.evaluators.inference_rows import payload_rows
from tests.unit.servelens.control_settings import backend, routes

ALERT = {"name": "errors", "endpoint": "chat", "metric": "error_rate", "above": 0.1, "channels": ["hook"]}


class Installation:
    """A settings file with an endpoint, an alert and a channel."""

    def __init__(self, folder: Path, url: str) -> None:
        self.config = folder / "servelens.yaml"
        split = {"served_entities": [backend("a")], "traffic_config": routes(a=100)}
        content = {
            "data_dir": "data",
            "endpoints": [{"name": "chat", "config": split}],
            "channels": [{"name": "hook", "webhook": {"url": url}}],
            "alerts": [{**ALERT, "window": "1h", "delay": 0}],
        }
        self.config.write_text(yaml.safe_dump(content))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["alert", *arguments, "--config", str(self.config)])

    def json(self, *arguments: str, status: int = 0) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    def schedule_once(self, statuses: list[int]) -> None:
        """Record calls with these statuses and run all alert jobs."""
        settings = load_settings(self.config)
        database = build_database(settings)
        try:
            database.create_tables()
            catalog = build_catalog(settings)
            rows = payload_rows(len(statuses), datetime.now(UTC) - timedelta(minutes=5), status_code=statuses)
            catalog.tables("chat").payload.append(rows)
            jobs = alert_jobs(settings, catalog, database, SystemClock(), threading.Event(), ["toxicity"])
            assert [job.name for job in jobs] == ["alert errors", "deliver alerts"]
            assert [result.error for result in Schedule(jobs).run_once()] == [None, None]
        finally:
            database.dispose()


@pytest.fixture
def sink() -> Any:
    with http_sink(200) as opened:
        yield opened


@pytest.fixture
def installation(tmp_path: Path, sink: HttpSink) -> Installation:
    return Installation(tmp_path, sink.url)


def test_from_records_to_a_notification_and_to_the_terminal(
    installation: Installation, sink: HttpSink
) -> None:
    assert installation.json("list")["alerts"][0]["status"] == "not_looked_at"
    installation.schedule_once([500] * 5 + [200] * 5)
    assert [request.json["rule"] for request in sink.received] == ["errors"]
    (alert,) = installation.json("list", status=1)["alerts"]
    assert alert["status"] == "firing"
    listed = installation.run("list")
    assert listed.exit_code == 1
    assert "error rate is 0.5, above 0.1" in listed.stdout
    (incident,) = installation.json("show", "errors")["incidents"]
    assert incident["deliveries"][0]["status"] == "sent"
    shown = installation.run("show", "errors").stdout
    assert "hook: firing sent after 1 attempts (answered 200)" in shown
    assert incident["examples"][0] in shown
    installation.schedule_once([200] * 90)
    assert [request.json["kind"] for request in sink.received] == ["firing", "resolved"]
    assert installation.run("list").exit_code == 0


def test_silences(installation: Installation, sink: HttpSink) -> None:
    made = installation.json("silence", "--rule", "err*", "--for", "2h", "--reason", "a load test")
    installation.schedule_once([500] * 5)
    assert sink.received == []
    assert "silenced" in installation.run("list").stdout
    assert "a load test" in installation.run("silences").stdout
    assert f"silenced by {made['id']}" in installation.run("show", "errors").stdout
    assert installation.run("unsilence", str(made["id"])).stdout == f"Silence {made['id']} is over.\n"
    installation.schedule_once([500] * 5)
    assert len(sink.received) == 1
    assert installation.json("silences")["silences"] == []
    assert len(installation.json("silences", "--ended")["silences"]) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("show", "other"), Missing, "no alert 'other'"),
        (("unsilence", "7"), Missing, "no silence 7"),
        (("silence", "--for", "1h", "--reason", "r"), Invalid, "nothing of what it silences"),
        (("silence", "--rule", "x", "--for", "soon", "--reason", "r"), Invalid, "no duration"),
        (("silence", "--rule", "x", "--for", "99999999999d", "--reason", "r"), Invalid, "no duration"),
        (("silence", "--rule", "x", "--for", "1h", "--reason", " "), Invalid, "reason"),
        (("test", "other"), Missing, "no channel 'other'"),
    ],
)
def test_mistakes_are_said(
    installation: Installation, arguments: tuple[str, ...], error: type[Exception], said: str
) -> None:
    result = installation.run(*arguments)
    assert isinstance(result.exception, error)
    assert said in str(result.exception)


def test_a_silence_ends_once(installation: Installation) -> None:
    made = installation.json("silence", "--endpoint", "chat", "--for", "1h", "--reason", "r")
    installation.json("unsilence", str(made["id"]))
    assert isinstance(installation.run("unsilence", str(made["id"])).exception, Conflict)


def test_a_channel_is_tried(installation: Installation, sink: HttpSink) -> None:
    assert installation.run("test", "hook").stdout == "hook (webhook) answered 200.\n"
    assert "This is a test of the channel hook" in sink.received[0].json["reason"]
    sink.answers = [403]
    failed = installation.run("test", "hook")
    assert (failed.exit_code, failed.stdout) == (1, "hook (webhook) answered 403.\n")
