from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from evaluators.runs.schedule import Schedule
from relabel.human_labels import human_labels
from relabel.label import Label, Rating
from relabel.queue.case_queue import CaseQueue
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.ground_truth import ground_truth_jobs
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.errors import Invalid, Missing
from servelens.processes.evaluation_agreement import run
from servelens.settings_file import load_settings
from tests.relabel_cases import add_cases, flagged, score_row
from tests.unit.evaluators.ground_truth.feedback_rows import truth_rows
from tests.unit.evaluators.inference_rows import payload_rows

SETTINGS = """
data_dir: data
endpoints:
  - name: chat
    config:
      served_entities:
        - {name: champion, backend: {urls: ["http://127.0.0.1:9"]}}
ground_truth:
  - {endpoint: chat, options: {pattern: 'label: (\\w+)'}}
relabel:
  rules:
    - {endpoint: chat, evaluator: toxicity, above: 0.5}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "servelens.yaml"
    path.write_text(SETTINGS)
    return path


def fill(config: Path, labels: Sequence[Label], scores: Sequence[float | None]) -> None:
    """Labeled cases of the endpoint, the first of them first, and the scores of their records."""
    settings, clock = load_settings(config), SystemClock()
    database = build_database(settings)
    endpoints = open_endpoint_store(settings, database, clock)
    add_cases(database, [flagged(number) for number in range(len(labels))])
    queue = CaseQueue(database, clock)
    for label in labels:
        case = queue.claim("ann")
        assert case is not None
        queue.submit(case.id, "ann", label)
    rows = [score_row(number, score) for number, score in enumerate(scores)]
    older = [{**row, "score": 0.5, "scored_at": datetime(2026, 1, 1, tzinfo=UTC)} for row in rows[:5]]
    tables = build_catalog(settings, endpoints).tables("chat")
    tables.scores.append(pl.DataFrame(rows + older, infer_schema_length=None))
    database.dispose()


BAD, GOOD = Label(Rating.BAD, tags=("Toxic",)), Label(Rating.GOOD)


def test_an_evaluator_is_measured_against_labels(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(config, [BAD, GOOD] * 15, [0.9, 0.2] * 14 + [0.1, None])
    assert run(config, "chat", "toxicity", as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["labeled"], found["compared"], found["unscored"], found["threshold"]) == (30, 29, 1, 0.5)
    assert (found["positive"], found["flagged"], found["chosen_by_evaluator"]) == (15, 14, 29)
    assert found["agreement"]["value"] == 28 / 29
    assert found["decision"] == {"precision": 1.0, "recall": 14 / 15, "f1": 28 / 29}
    assert found["positive_means"] == "rated bad"
    assert run(config, "chat", "toxicity", tag="toxic", above=0.95) == 0
    printed = capsys.readouterr().out
    assert "people's yes is an answer tagged toxic" in printed
    assert "above 0.95" in printed
    assert "29 of 29 records were labeled because" in printed


def test_too_few_labels_are_said_to_be_too_few(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(config, [BAD, GOOD, BAD], [0.9, 0.2, 0.8])
    assert run(config, "chat", "toxicity") == 0
    assert (
        "Insufficient data: 3 records have a label and a score, and 20 are needed." in capsys.readouterr().out
    )


def test_what_is_missing_is_named(config: Path) -> None:
    with pytest.raises(Missing, match="nobody has labeled a case of 'chat' yet"):
        run(config, "chat", "toxicity")
    with pytest.raises(Invalid, match="no relabeling rule says which judge scores of 'chat'"):
        run(config, "chat", "judge")
    with pytest.raises(Invalid, match="both 'above' and 'below' are given"):
        run(config, "chat", "judge", above=1, below=2)
    with pytest.raises(Missing, match="no endpoint 'chatt'"):
        run(config, "chatt", "toxicity")


def test_labels_are_read_with_what_made_them_cases(config: Path) -> None:
    fill(config, [BAD, GOOD], [0.9, 0.2])
    database = build_database(load_settings(config))
    first, second = human_labels(database, "chat")
    assert (first.rating, first.tags, first.evaluators) == (Rating.BAD, ("Toxic",), frozenset({"toxicity"}))
    assert (second.databricks_request_id, second.rating) == ("request-000001", Rating.GOOD)
    assert list(human_labels(database, "other")) == []
    database.dispose()


def test_ground_truth_is_a_job(config: Path) -> None:
    settings, clock = load_settings(config), SystemClock()
    database = build_database(settings)
    catalog = build_catalog(settings, open_endpoint_store(settings, database, clock))
    tables = catalog.tables("chat")
    payload = payload_rows(2, datetime(2026, 3, 1, tzinfo=UTC), response_text="The label: Cat.")
    tables.payload.append(payload)
    tables.feedback.append(truth_rows(payload, ["cat", "dog"]))
    schedule = Schedule(ground_truth_jobs(settings, catalog, database, clock, threading.Event()))
    scored, quality = schedule.run_once()
    assert scored.error is None
    assert (quality.value, quality.error) == (0, None)
    assert tables.scores.scan().select("score").collect()["score"].sort().to_list() == [0.0, 1.0]
    database.dispose()
