"""``servelens experiment plan``, ``replay`` and ``report`` as a user runs them, over real tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from sqlalchemy import select

from experiments.assignment import assign
from experiments.lifecycle import Lifecycle
from experiments.models import AnalysisRow
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.experiments import open_lifecycle
from servelens.assembly.tables import build_catalog
from servelens.cli import cli, main
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid
from servelens.settings_file import load_settings
from tests.unit.experiments.records import payload, payload_frame
from tests.unit.servelens.control_settings import backend, routes

BLOCK: dict[str, Any] = {
    "name": "tone",
    "endpoint": "chat",
    "control": {"served_entity": "a", "weight": 50},
    "treatments": [{"served_entity": "b", "weight": 50}],
    "primary_metric": "latency_ms",
    "secondary_metrics": ["success_rate"],
    "guardrails": [{"metric": "error_rate", "margin": 0.05}],
    "planned_units": 5000,
}
USERS = 300


@dataclass
class Installation:
    """A settings file with an endpoint of two served entities and one experiment in it, its database and its tables."""

    folder: Path
    database: Database

    @property
    def config(self) -> Path:
        return self.folder / "servelens.yaml"

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["experiment", *arguments, "--config", str(self.config)])

    def said(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def block(self, **changes: Any) -> str:
        file = self.folder / "block.yaml"
        file.write_text(yaml.safe_dump({**BLOCK, **changes}))
        return str(file)

    def traffic(self, *, before: timedelta = timedelta(), users: int = USERS) -> None:
        """Each user's call: to the route before the experiment, else to the variant it gives them."""
        settings = load_settings(self.config)
        endpoints = open_endpoint_store(settings, self.database, SystemClock())
        tables = build_catalog(settings, endpoints).tables("chat")
        experiment = None if before else Lifecycle(self.database, SystemClock()).standing("tone").experiment
        rng, rows = np.random.default_rng(7), []
        for number in range(users):
            seen: dict[str, Any] = {"experiment": None, "phase": None, "served_entity": "a"}
            if experiment is not None:
                given = assign(experiment, f"user-{number}")
                assert given is not None
                seen = {"propensity": given.propensity, "served_entity": given.variant.served_entity}
            failed = number % 25 == 0
            rows.append(
                payload(
                    f"user-{number}",
                    None if experiment is None else seen["served_entity"],
                    request_time=datetime.now(UTC) - before,
                    execution_duration_ms=max(round(float(rng.lognormal(5, 0.5))), 1),
                    status_code=500 if failed else 200,
                    error_type="upstream_status" if failed else None,
                    **seen,
                )
            )
        tables.payload.append(payload_frame(rows).collect())


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    split = {"served_entities": [backend("a"), backend("b")], "traffic_config": routes(a=100)}
    written = {"data_dir": "data", "endpoints": [{"name": "chat", "config": split}], "experiments": [BLOCK]}
    (tmp_path / "servelens.yaml").write_text(yaml.safe_dump(written))
    database = build_database(load_settings(tmp_path / "servelens.yaml"))
    yield Installation(tmp_path, database)
    database.dispose()


def test_a_plan_in_words_and_in_numbers(installation: Installation) -> None:
    installation.traffic(before=timedelta(days=1))
    text = installation.said("plan", "tone", "--days", "2", "--effect", "0.1", "--power", "0.9")
    plan = json.loads(
        installation.said("plan", "tone", "--days", "2", "--effect", "0.1", "--power", "0.9", "--json")
    )
    assert (plan["experiment"], plan["endpoint"], plan["units_per_day"]) == ("tone", "chat", USERS / 2)
    latency, success = plan["metrics"]
    assert (latency["metric"], success["metric"]) == ("latency_ms", "success_rate")
    assert success["baseline"] == pytest.approx(0.96)
    designs = {need["design"]: need["units"] for need in latency["needs"]}
    assert list(designs) == ["always valid", "5 planned looks", "one look"]
    assert designs["one look"] < designs["5 planned looks"] < designs["always valid"]
    (guardrail,) = plan["guardrails"]
    assert guardrail["needs"][0]["units"] > 0

    assert "tone on chat: 150 users a day over the last 2 days." in text
    assert "a change of 10 % with a probability of 90 %" in text
    for metric in (latency, success, guardrail):
        assert metric["label"] in text
        for need in metric["needs"]:
            assert f"{need['units']:,}" in text
    assert f"With 5,000 users, a change of {latency['detectable'] * 100:+.3g} %" in text


def test_a_file_is_planned_as_the_experiment_of_that_name_is(installation: Installation) -> None:
    installation.traffic(before=timedelta(days=1))
    by_name = installation.said("plan", "tone", "--json")
    assert installation.said("plan", installation.block(), "--json") == by_name
    other = json.loads(installation.said("plan", installation.block(name="other", alpha=0.01), "--json"))
    assert (other["experiment"], other["alpha"]) == ("other", 0.01)
    assert other["metrics"][0]["needs"][0]["units"] > json.loads(by_name)["metrics"][0]["needs"][0]["units"]
    assert Lifecycle(installation.database, SystemClock()).standings() == [], "planning starts nothing"


def test_without_traffic_a_plan_says_so(installation: Installation) -> None:
    text = installation.said("plan", "tone")
    assert "0 users a day" in text
    plan = json.loads(installation.said("plan", "tone", "--json"))
    for each in (*plan["metrics"], *plan["guardrails"]):
        assert (each["needs"], each["baseline"], each["detectable"]) == ([], None, None)
        assert "0 units" in each["reason"]
        assert each["reason"] in text


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("--effect", "0"), "effect"), (("--power", "nan"), "power"), (("--days", "1e10"), "days")],
)
def test_a_plan_for_the_impossible_is_refused_by_field(
    installation: Installation, arguments: tuple[str, str], field: str
) -> None:
    refused = installation.run("plan", "tone", *arguments).exception
    assert isinstance(refused, Invalid)
    assert refused.field == field
    assert refused.fix


def test_a_plan_of_a_file_that_is_wrong_names_what(installation: Installation) -> None:
    refused = installation.run("plan", installation.block(secondary_metrics=["nonsense"])).exception
    assert isinstance(refused, Invalid)
    assert refused.field == "secondary_metrics[0]"
    nowhere = installation.run("plan", str(installation.folder / "none.yaml")).exception
    assert isinstance(nowhere, Invalid)
    assert "none.yaml cannot be read: No such file" in str(nowhere)


def test_report_then_replay(installation: Installation) -> None:
    first = json.loads(installation.said("report", "tone"))
    assert (first["experiment"], first["units"], first["payload_version"]) == ("tone", 0, None)
    installation.traffic()
    second = json.loads(installation.said("report", "tone"))
    assert (second["units"], sum(second["records"].values())) == (USERS, USERS)
    assert second["metrics"][0]["name"] == "latency_ms"

    text = installation.said("replay", "tone", "--looks", "5")
    assert text.splitlines() == [f"{second['as_of']}  report: agrees", f"{first['as_of']}  report: agrees"]
    document = json.loads(installation.said("replay", "tone", "--json"))
    (newest,) = document["reports"]
    assert document["decisions"] == []
    assert (newest["as_of"], newest["outcome"], newest["differences"]) == (second["as_of"], "agrees", [])
    assert newest["reported_by"] == newest["replayed_by"]


def test_a_report_that_was_damaged_is_named_with_the_value(installation: Installation) -> None:
    installation.run("report", "tone")
    installation.traffic()
    installation.said("report", "tone")
    with installation.database.session() as session:
        row = session.scalars(select(AnalysisRow).order_by(AnalysisRow.id.desc()).limit(1)).one()
        metric = row.report["metrics"][0]
        estimate = metric["variants"]["a"]["estimate"]
        damaged = {**metric["variants"]["a"], "estimate": estimate + 1}
        changed = {**metric, "variants": {**metric["variants"], "a": damaged}}
        row.report = {**row.report, "metrics": [changed, *row.report["metrics"][1:]]}
    result = installation.run("replay", "tone", "--looks", "2")
    assert result.exit_code == 1
    newest, difference, older = result.stdout.splitlines()
    assert newest.endswith("  report: DIFFERS")
    path, _, values = difference.strip().partition(": ")
    assert path == "metrics[0].variants.a.estimate"
    reported, replayed = (float(each.split()[0]) for each in values.split(", "))
    assert (reported, replayed) == (estimate + 1, pytest.approx(estimate))
    assert older.endswith("  report: agrees")
    as_json = installation.run("replay", "tone", "--json")
    assert as_json.exit_code == 1
    assert [each["path"] for each in json.loads(as_json.stdout)["reports"][0]["differences"]] == [path]


def test_a_look_whose_files_are_gone_cannot_be_replayed(installation: Installation) -> None:
    installation.run("report", "tone")
    installation.traffic()
    installation.said("report", "tone")
    for file in (installation.folder / "data" / "tables").rglob("*.parquet"):
        file.unlink()
    result = installation.run("replay", "tone")
    assert result.exit_code == 1
    assert "cannot be replayed" in result.stdout
    assert "no longer reach back" in result.stdout


def test_before_the_first_look_there_is_nothing_to_replay(installation: Installation) -> None:
    for _ in range(2):  # before the file has started it, and after
        refused = installation.run("replay", "tone").exception
        assert isinstance(refused, Conflict)
        assert "has not been analysed yet" in str(refused)
        assert "servelens experiment report tone" in str(refused)
        open_lifecycle(load_settings(installation.config), installation.database, SystemClock())


@pytest.mark.parametrize("command", ["plan", "replay", "report"])
def test_an_unknown_name_ends_with_status_2_and_the_known_ones(
    installation: Installation,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installation.said("report", "tone")
    wanted = ["servelens", "experiment", command, "nobody", "--config", str(installation.config)]
    monkeypatch.setattr(sys, "argv", wanted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no experiment 'nobody'. Use one of: tone" in line
