"""An experiment that is wrong is refused on every way in (settings file, YAML file, HTTP) by the field, with its place,
and with what to do; nothing raises anything else, and nothing else is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from click.testing import CliRunner
from fastapi import FastAPI

from dashboard import problems
from experiments.analysis.analyzer import Analyzer
from experiments.api import ExperimentControl, router
from experiments.decision_log import DecisionLog
from experiments.lifecycle import Lifecycle
from experiments.store import ExperimentStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.rollouts import ManualDecisions, build_controller
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.control.experiment_requests import requested_experiment
from servelens.errors import Invalid, InvalidSettings
from servelens.settings_file import load_settings
from tests.unit.servelens.control_settings import backend, routes

A: Final = {"served_entity": "a"}
B: Final = {"served_entity": "b"}
AB: Final = {
    "name": "one",
    "endpoint": "chat",
    "control": {**A, "weight": 50},
    "treatments": [{**B, "weight": 50}],
}
ERRORS: Final = {"metric": "error_rate", "margin": 0.01}
SLOWER: Final = {"metric": "latency_ms", "margin": 0.1}
CANARY: Final = {
    "name": "one",
    "endpoint": "chat",
    "kind": "canary",
    "control": A,
    "treatments": [B],
    "guardrails": [ERRORS],
}
BANDIT: Final = {"name": "one", "endpoint": "chat", "kind": "bandit", "control": A, "treatments": [B]}
SHADOW: Final = {
    "name": "one",
    "endpoint": "chat",
    "kind": "shadow",
    "control": A,
    "treatments": [{"served_entity": "mirror"}],
}
GOOD: Final = {**AB, "name": "good", "endpoint": "other"}

# What is wrong, the field that it is in, and words of the message or of the fix.
WRONG: Final = [
    ({**CANARY, "guardrails": [SLOWER, {**ERRORS, "margin": 0}]}, "guardrails[1].margin", "greater than 0"),
    ({**CANARY, "guardrails": [{**ERRORS, "margin": 1}]}, "guardrails[0].margin", "allows everything"),
    (
        {**CANARY, "guardrails": [{**ERRORS, "margin": float("inf")}]},
        "guardrails[0].margin",
        "number above 0",
    ),
    (
        {**CANARY, "guardrails": [{**ERRORS, "margin": float("nan")}]},
        "guardrails[0].margin",
        "greater than 0",
    ),
    (
        {**CANARY, "guardrails": [SLOWER, {**ERRORS, "tolerance": 0.1}]},
        "guardrails[1].tolerance",
        "from 0 to the margin",
    ),
    (
        {**CANARY, "guardrails": [{**ERRORS, "metric": "nonsense"}]},
        "guardrails[0].metric",
        "Use cost, error_rate",
    ),
    (
        {**CANARY, "guardrails": [{**ERRORS, "metric": "score:tone"}]},
        "guardrails[0].better",
        "better: higher",
    ),
    ({**CANARY, "guardrails": [ERRORS, ERRORS]}, "guardrails[1].metric", "Keep the stricter one"),
    ({**CANARY, "guardrails": []}, "guardrails", "{metric: error_rate, margin: 0.01}"),
    ({**CANARY, "treatments": [B, {**B, "name": "c"}]}, "treatments", "Use kind: ab"),
    ({**CANARY, "control": {**A, "weight": 90}}, "control.weight", "rollout.steps"),
    (
        {**CANARY, "rollout": {"steps": [{"weight": 9}, {"weight": 5}]}},
        "rollout.steps[1].weight",
        "weights rise",
    ),
    ({**CANARY, "rollout": {"steps": [{"weight": 100}]}}, "rollout.steps[0].weight", "less than 100"),
    (
        {**CANARY, "rollout": {"steps": [{"weight": 9, "duration_s": 1e300}]}},
        "rollout.steps[0].duration_s",
        "315360000",
    ),
    ({**CANARY, "rollout": {"deadline_s": float("inf")}}, "rollout.deadline_s", "at most 315360000"),
    ({**AB, "primary_metric": "nonsense"}, "primary_metric", "Use cost, error_rate"),
    ({**AB, "primary_metric": "success_rate:p95"}, "primary_metric", "Use success_rate."),
    ({**AB, "co_primary_metrics": ["feedback:\t"]}, "co_primary_metrics[0]", "feedback:<name>"),
    ({**AB, "secondary_metrics": ["cost", "score:"]}, "secondary_metrics[1]", "score:<evaluator>"),
    (
        {**AB, "secondary_metrics": ["latency_ms", "latency_ms"]},
        "secondary_metrics[1]",
        "Name each metric once",
    ),
    ({**AB, "secondary_metrics": ["cost"]}, "prices", "input_per_million"),
    ({**AB, "control": {**A, "weight": 40}}, "weight", "adds up to 90"),
    ({**AB, "control": A}, "control.weight", "Give every variant one"),
    ({**AB, "treatments": [{**B, "weight": -50}]}, "treatments[0].weight", "greater than or equal to 0"),
    (
        {**AB, "treatments": [{"served_entity": "nobody", "weight": 50}]},
        "treatments[0].served_entity",
        "a, b",
    ),
    ({**AB, "treatments": [{**A, "weight": 50}]}, "treatments", "Give each its own name"),
    ({**AB, "endpoint": "nowhere"}, "endpoint", "Use one of: chat, other"),
    ({**AB, "share": 60, "share_from": 50}, "share_from", "Use 0 to 40"),
    ({**AB, "phase": 2**31}, "phase", "Raise it by one"),
    ({**AB, "cuped_days": 1e300}, "cuped_days", "Use 0 to 3650"),
    ({**AB, "salt": "\ud800"}, "salt", "valid string"),
    (
        {**AB, "treatments": [{**B, "name": f"b{n}", "weight": 0.5} for n in range(100)]},
        "treatments",
        "at most 99",
    ),
    ({**AB, "guardrail": []}, "guardrail", "there is no such"),
    ({**BANDIT, "bandit": {"floor": 0.6}}, "bandit.floor", "less than 0.5"),
    (
        {**BANDIT, "treatments": [B, {**B, "name": "c"}], "bandit": {"floor": 0.4}},
        "bandit.floor",
        "Use less than 0.33",
    ),
    ({**BANDIT, "treatments": [{**B, "weight": 50}]}, "control.weight", "or none to begin equal"),
    ({**BANDIT, "primary_metric": "latency_ms:p95"}, "primary_metric", "success_rate"),
    ({**SHADOW, "treatments": [B]}, "treatments[0].served_entity", "there are: mirror"),
    ({**SHADOW, "guardrails": [ERRORS]}, "guardrails", "secondary_metrics"),
    (
        {**SHADOW, "treatments": [{"served_entity": "mirror", "weight": 1}]},
        "treatments[0].weight",
        "Leave it out",
    ),
]
ADDRESSES: Final = [
    "nowhere",
    "ftp://host/",
    "http:///path",
    "http://[::1/",
    "http://host:99999/",
    "http://host:port/",
    "http://host/\nx: y",
    "http://host/ä b",
]
WRONG += [
    ({**CANARY, "rollout": {"webhooks": [{"url": url}]}}, "rollout.webhooks[0].url", "http(s)://host/path")
    for url in ADDRESSES
]


@dataclass(frozen=True)
class Installation:
    """A settings file with two endpoints, its database, and the console's HTTP API over them."""

    folder: Path
    lifecycle: Lifecycle
    app: FastAPI

    @property
    def config(self) -> Path:
        return self.folder / "servelens.yaml"

    def load(self, *experiments: Any) -> None:
        file = self.folder / "with.yaml"
        file.write_text(yaml.safe_dump({**settings(), "experiments": list(experiments)}))
        load_settings(file)

    def create(self, block: Any) -> BaseException | None:
        file = self.folder / "block.yaml"
        file.write_text(yaml.safe_dump(block))
        command = ["experiment", "create", str(file), "--config", str(self.config)]
        return CliRunner().invoke(cli, command).exception

    async def call(self, method: str, path: str, body: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            headers = {"content-type": "application/json"}
            return await client.request(method, f"/api/experiments{path}", content=body, headers=headers)


def settings() -> dict[str, Any]:
    entities = [backend("a"), backend("b"), backend("mirror")]
    config = {
        "served_entities": entities,
        "shadows": [{"served_entity_name": "mirror"}],
        "traffic_config": routes(a=100),
    }
    return {
        "data_dir": "data",
        "endpoints": [{"name": "chat", "config": config}, {"name": "other", "config": config}],
    }


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("input")
    (folder / "servelens.yaml").write_text(yaml.safe_dump(settings()))
    loaded, clock = load_settings(folder / "servelens.yaml"), SystemClock()
    database = build_database(loaded)
    endpoints = open_endpoint_store(loaded, database, clock)
    lifecycle, store = Lifecycle(database, clock), ExperimentStore(database, clock)
    catalog = build_catalog(loaded, endpoints)
    decisions = ManualDecisions(
        build_controller(database, lifecycle, endpoints, clock), DecisionLog(database, clock)
    )
    control = ExperimentControl(
        lifecycle,
        partial(requested_experiment, endpoints=endpoints),
        decisions.promote,
        decisions.abort,
        decisions.history,
    )
    app = FastAPI()
    problems.install(app)
    app.include_router(
        router(store, lambda one: Analyzer(catalog.tables(one.endpoint), store, clock), control)
    )
    yield Installation(folder, lifecycle, app)
    database.dispose()


@pytest.mark.parametrize(("block", "field", "words"), WRONG)
async def test_what_is_wrong_is_named_on_every_way_in(
    installation: Installation, block: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidSettings) as refused:
        installation.load(GOOD, block)
    line = str(refused.value)
    assert line.startswith(f"with.yaml: experiments[1].{field}: ")
    assert words in line
    assert line.isprintable()

    by_file = installation.create(block)
    assert isinstance(by_file, Invalid), by_file
    assert by_file.field == field
    assert words in str(by_file)
    assert by_file.fix
    assert str(by_file).isprintable()

    answer = await installation.call("POST", "", json.dumps(block))
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert (problem["field"], problem["detail"], problem["fix"]) == (field, by_file.message, by_file.fix)
    assert "one" not in {each.experiment.name for each in installation.lifecycle.standings()}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"share": 60, "share_from": 40}, "share_from", "Use share_from: 50 with a share of at most 50"),
        ({"share": 50, "share_from": 50, "unit": "session"}, "unit", "Use user"),
        ({"share": 50, "share_from": 50, "layer": "own"}, "layer", "Use layer 'chat'"),
    ],
)
async def test_places_that_two_want_are_named(
    installation: Installation, changes: dict[str, Any], field: str, words: str
) -> None:
    first, second = {**AB, "share": 50}, {**AB, "name": "two", **changes}
    with pytest.raises(InvalidSettings) as refused:
        installation.load(GOOD, first, second)
    assert str(refused.value).startswith(f"with.yaml: experiments[2].{field}: ")
    assert words in str(refused.value)

    number = len(installation.lifecycle.standings())
    running = {**first, "name": f"running-{number}"}
    assert (await installation.call("POST", "", json.dumps(running))).status_code == 201
    answer = await installation.call("POST", "", json.dumps(second))
    by_file = installation.create(second)
    installation.lifecycle.stop(running["name"], "test")
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["field"] == f"experiments[two].{field}"
    assert words in problem["fix"]
    assert words in str(by_file)


@pytest.mark.parametrize("body", ["", "no json", "[]", "null", "1", '"one"'])
async def test_a_body_that_is_no_object_is_refused(installation: Installation, body: str) -> None:
    for method, path in (("POST", ""), ("PATCH", "/one")):
        answer = await installation.call(method, path, body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert answer.json()["field"] == "body"
        assert answer.json()["fix"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ('{"share": 0}', "share", "Use 1 to 100"),
        ('{"share": NaN}', "share", "Use 1 to 100"),
        ('{"share": "much"}', "share", "Correct the value"),
        ('{"shares": 1}', "shares", "Correct the value"),
        ("{}", "share", "Give share, weights or both"),
        ('{"weights": {"a": 60}}', "weights", "add up to 110"),
        ('{"weights": {"a": NaN, "b": 50}}', "weights.a", "Use 0 to 100"),
        ('{"weights": {"a": -10, "b": 110}}', "weights.a", "Use 0 to 100"),
        ('{"weights": {"c": 100}}', "weights.c", "Use a, b"),
        ('{"weights": {"\\ud800": 100}}', "weights.\ud800", "Use a, b"),
    ],
)
async def test_a_wrong_change_is_named_and_changes_nothing(
    installation: Installation, change: str, field: str, words: str
) -> None:
    name = f"changed-{len(installation.lifecycle.standings())}"
    await installation.call("POST", "", json.dumps({**AB, "name": name, "share": 50}))
    before = installation.lifecycle.standing(name)
    answer = await installation.call("PATCH", f"/{name}", change)
    assert installation.lifecycle.standing(name) == before
    installation.lifecycle.stop(name, "test")
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert words in f"{problem['detail']} {problem['fix']}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [one", "line 1, column 11: expected ',' or ']'"),
        ("name: one\n  kind: ab", "line 2, column 7: mapping values are not allowed here"),
        ("name: 2026-02-30", "day is out of range"),
        ("name: \0", "special characters are not allowed"),
        ("[" * 600, "recursion"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line_with_the_place(
    installation: Installation, text: str, words: str
) -> None:
    file = installation.folder / "wrong.yaml"
    file.write_text(text)
    command = ["experiment", "create", str(file), "--config", str(installation.config)]
    with pytest.raises(InvalidSettings) as by_settings:
        load_settings(file)
    for refused in (by_settings.value, CliRunner().invoke(cli, command).exception):
        assert isinstance(refused, Invalid)
        assert f"{file} is not YAML" in str(refused)
        assert words in str(refused)
        assert str(refused).isprintable()


def test_a_file_that_holds_itself_is_refused(installation: Installation) -> None:
    (installation.folder / "itself.yaml").write_text("data_dir: &all [*all]")
    with pytest.raises(InvalidSettings, match="Leave out what refers to itself"):
        load_settings(installation.folder / "itself.yaml")
