"""Evaluators against people through settings, tables and database, with a control sample; and the command for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from collector.catalog import Catalog
from relabel.models import RuleDayRow
from servelens.assembly.agreement import EvaluatorAgreements, measured_agreement
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.label_schemas import open_schema_store
from servelens.assembly.tables import build_catalog
from servelens.cli import cli
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Invalid, Missing
from servelens.processes.evaluation_agreement import run
from servelens.settings import Settings
from servelens.settings_file import load_settings
from tests.relabel_cases import START, add_cases, append_rows, flagged, score_row
from tests.unit.relabel.agreement.labeled_cases import decide, label, labels, sample

SETTINGS = """
data_dir: data
endpoints:
  - name: chat
    config:
      served_entities:
        - {name: champion, backend: {urls: ["http://127.0.0.1:9"]}}
relabel:
  rules:
    - {endpoint: chat, evaluator: toxicity, above: 0.5}
  schemas:
    - endpoint: chat
      fields:
        - {name: verdict, type: rating}
        - {name: topic, type: choice, options: [billing, bug]}
"""


class World:
    """What the settings open."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings: Settings = load_settings(config)
        self.clock = SystemClock()
        self.database: Database = build_database(self.settings)
        self.catalog: Catalog = build_catalog(
            self.settings, open_endpoint_store(self.settings, self.database, self.clock)
        )
        self.schemas = open_schema_store(self.settings, self.database, self.clock)

    def measure(self, **options: Any) -> dict[str, Any]:
        """The toxicity of responses against people."""
        return measured_agreement(
            self.settings,
            self.database,
            self.catalog.tables("chat"),
            "chat",
            "toxicity",
            schemas=self.schemas,
            **options,
        ).to_dict()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    config = tmp_path / "servelens.yaml"
    config.write_text(SETTINGS)
    opened = World(config)
    yield opened
    opened.database.dispose()


def fill(world: World, *, label_sample: bool = True) -> None:
    """Sixty flagged cases of which three in four are bad, and a sample of sixty records that were not flagged of which one in
    six is bad, and twelve that were."""
    rng = np.random.default_rng(1)
    chosen = [flagged(number) for number in range(60)]
    drawn = [flagged(number, evaluator="other") for number in range(60, 120)]
    add_cases(world.database, chosen + drawn)
    scores = [0.9 - 0.3 * rng.random() for _ in range(60)] + [0.4 * rng.random() for _ in range(60)]
    append_rows(
        world.catalog.tables("chat"), [], [score_row(number, each) for number, each in enumerate(scores)]
    )
    for number in range(120):
        case = number + 1
        bad = number % 4 != 0 if number < 60 else number % 6 == 0
        if number >= 60 or number % 5 == 0:
            sample(world.database, case, 0.05 if number % 2 else 0.1)
        if number < 60 or label_sample:
            rating = "bad" if bad else "good"
            given = label(
                world.database, case, "ann", rating=rating, schema_version=1, values={"topic": "bug"}
            )
            decide(world.database, case, given)


def test_recall_is_of_the_sample_and_precision_of_the_chosen(world: World) -> None:
    fill(world)
    found = world.measure()
    assert (found["labeled"], found["compared"], found["chosen_by_evaluator"]) == (120, 120, 60)
    assert (found["asked"], found["positive_means"]) == ("rating=bad", "rated bad")
    assert (found["sample"]["drawn"], found["sample"]["compared"], found["sample"]["weighted"]) == (
        72,
        72,
        True,
    )
    assert found["flagged_cases"]["precision"]["value"] == 45 / 60
    assert found["flagged_cases"]["unfair"] is None
    assert found["combined"]["precision_from"] == "flagged_cases"
    # By hand: the sampled bad answers, each by how many records it stands for.
    weights = {number: 1 / (0.05 if number % 2 else 0.1) for number in range(120)}
    hit = sum(weights[number] for number in range(0, 60, 5) if number % 4)
    missed = sum(weights[number] for number in range(60, 120) if number % 6 == 0)
    assert found["combined"]["recall"]["value"] == pytest.approx(hit / (hit + missed))
    assert found["combined"]["recall"]["value"] < found["decision"]["recall"]
    assert found["basis"] == "control_sample"
    json.dumps(found, allow_nan=False)


def test_people_may_be_asked_for_another_answer(world: World) -> None:
    fill(world)
    found = world.measure(positive="topic=bug")
    assert (found["asked"], found["positive"]) == ("topic=bug", 120)
    assert "kappa: people and the evaluator" not in found["insufficient"]
    with pytest.raises(Invalid, match="topic"):
        world.measure(positive="topic=sales")
    with pytest.raises(Invalid, match="the label schema has no tags"):
        world.measure(tag="toxic")
    with pytest.raises(Invalid, match="both are given"):
        world.measure(tag="toxic", positive="topic=bug")


def test_labels_of_a_schema_without_the_field_are_left_out(world: World) -> None:
    fill(world, label_sample=False)
    for case in range(61, 66):
        decide(world.database, case, label(world.database, case, "ann", rating="bad", schema_version=0))
    found = world.measure(positive="topic=bug")
    assert (found["labeled"], found["unanswered"]) == (60, 5)
    assert world.measure(positive="rating=bad")["labeled"] == 65


def test_a_sample_that_waits_says_so(world: World) -> None:
    fill(world, label_sample=False)
    found = world.measure()
    assert (found["sample"]["drawn"], found["sample"]["compared"], found["sample"]["waiting"]) == (72, 12, 60)
    assert found["combined"]["recall"] is None
    assert found["sample"]["insufficient"] == ("unflagged sampled records have no label yet",)


def test_cases_under_a_budget_are_no_fair_choice(world: World) -> None:
    fill(world)
    with world.database.session() as session:
        session.add(
            RuleDayRow(
                endpoint="chat",
                rule="toxicity response above",
                day=START.date(),
                cases=60,
                over_budget=400,
                repeated=0,
                over_cluster=3,
                without_text=0,
            )
        )
    found = world.measure()
    assert "403 flagged records made no case" in found["flagged_cases"]["unfair"]
    assert found["combined"]["precision_from"] == "control_sample"
    below_the_rule = world.measure(above=0.2)
    assert below_the_rule["flagged_cases"]["unfair"] == "its rule only takes scores above 0.5"
    assert below_the_rule["flagged_cases"]["cases"] == 0


def test_cases_that_wait_or_stand_for_many_are_no_fair_choice(world: World) -> None:
    fill(world)
    add_cases(world.database, [flagged(number) for number in range(200, 206)])
    assert world.measure()["flagged_cases"]["unfair"] is None  # 6 of 66
    add_cases(world.database, [flagged(number) for number in range(206, 210)])
    found = world.measure()
    assert "10 of its 70 cases have no label yet" in found["flagged_cases"]["unfair"]
    assert found["combined"]["precision_from"] == "control_sample"
    with world.database.session() as session:
        session.add(
            RuleDayRow(
                endpoint="chat",
                rule="toxicity response above",
                day=START.date(),
                cases=70,
                over_budget=0,
                repeated=30,
                over_cluster=0,
                without_text=0,
            )
        )
    assert "30 flagged records say what another case says" in world.measure()["flagged_cases"]["unfair"]


def test_the_console_is_told_of_rules_and_results(world: World) -> None:
    fill(world)
    agreements = EvaluatorAgreements(
        world.settings, world.database, world.catalog, world.clock, world.schemas
    )
    assert agreements.choices("chat") == (("toxicity", "response"),)
    assert agreements.choices("other") == ()
    found = agreements("chat", "toxicity")
    assert found is agreements("chat", "toxicity")
    assert agreements("chat", "toxicity", above=0.6)["threshold"] == 0.6
    for wrong in (float("nan"), float("inf")):  # JSON has no word for them
        with pytest.raises(Invalid, match="no threshold"):
            agreements("chat", "toxicity", below=wrong)
    with pytest.raises(Missing, match="no endpoint"):
        agreements("nowhere", "toxicity", above=1)


def test_the_command_prints_what_is_known(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    fill(world)
    assert run(world.config, "chat", "toxicity") == 0
    printed = capsys.readouterr().out
    assert "72 / 72 / 0 / 0" in printed
    assert "best known precision, by chosen cases" in printed
    assert "The best threshold is found on the control sample." in printed
    assert run(world.config, "chat", "toxicity", above=0.2) == 0
    assert "its rule only takes scores above 0.5" in capsys.readouterr().out


def test_the_command_for_people(world: World) -> None:
    add_cases(world.database, [flagged(number) for number in range(30)])
    rows = [{"rating": "bad" if number % 3 else "good", "schema_version": 1} for number in range(30)]
    other = [{"rating": "bad" if number % 4 else "good", "schema_version": 1} for number in range(30)]
    labels(world.database, range(1, 31), {"ann": rows, "bob": other})
    command = ["relabel", "agreement", "--config", str(world.config), "--endpoint", "chat"]
    printed = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert printed.exit_code == 0
    assert "chat: 60 labels of 30 cases; 30 have two or more." in printed.output
    assert "ann, bob" in printed.output
    found = json.loads(CliRunner().invoke(cli, [*command, "--json"], catch_exceptions=False).output)
    assert found["fields"][0]["field"] == "verdict"
    assert found["fields"][0]["measures"]["alpha"]["interval"] is not None
    unknown = CliRunner().invoke(cli, [*command[:-1], "nowhere"])
    assert unknown.exit_code != 0
