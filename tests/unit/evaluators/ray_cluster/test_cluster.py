"""Evaluators on a real Ray cluster of two nodes: equal to the local ones, whatever becomes of a text, an actor or a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import yaml

from collector.catalog import EndpointTables
from collector.deletion import delete_keys
from evaluators.evaluator import MODEL_ERROR, NOT_FINITE, TIMED_OUT, WORKER_DIED, Score, Text
from evaluators.ray_cluster.evaluator import RayEvaluator
from evaluators.ray_cluster.placement import Actors, RayCluster
from evaluators.registry import EvaluatorSpec
from evaluators.runs.record_scores import NO_TEXT, PAYLOAD_TOO_LARGE, RECORD_GONE
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from evaluators.workers.isolated import IsolatedEvaluator
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.evaluations import open_evaluations
from servelens.assembly.tables import build_catalog
from servelens.clock import ManualClock, SystemClock
from servelens.errors import Unavailable
from servelens.settings_file import load_settings
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows
from tests.unit.evaluators.ray_cluster.conftest import TwoNodes
from tests.unit.servelens.control_settings import backend

Make = Callable[..., RayEvaluator]
START = datetime(2026, 3, 4, 23, 59, 59, 900_000, tzinfo=UTC)  # the records are of two days
BOTH = Actors(2, num_cpus=2)  # a node has two: one actor on each
ANYWHERE = Actors(1, num_cpus=0)
ID = "databricks_request_id"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=1))


@pytest.fixture
def on_ray(nodes: TwoNodes, tmp_path: Path) -> Iterator[Make]:
    made: list[RayEvaluator] = []

    def make(
        actors: Actors = BOTH, *, timeout_s: float = 2.0, placement_timeout_s: float = 60.0, **options: Any
    ) -> RayEvaluator:
        read_on_nodes = options.pop("read_on_nodes", True)
        cluster = RayCluster(
            nodes.address,
            read_on_nodes=read_on_nodes,
            placement_timeout_s=placement_timeout_s,
            runtime_env=options.pop("runtime_env", {}),
        )
        spec = EvaluatorSpec("travelling", options)
        made.append(RayEvaluator(spec, tmp_path, cluster, actors=actors, timeout_s=timeout_s))
        return made[-1]

    yield make
    for each in made:
        each.close()


def texts(*responses: str) -> list[Text]:
    return [Text("?", response) for response in responses]


def outcome(scores: list[Score]) -> list[float | str | None]:
    return [score.value if score.unscored_reason is None else score.unscored_reason for score in scores]


def labels(scores: list[Score]) -> set[str | None]:
    return {score.label for score in scores}


def await_that(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def local_scores(tmp_path: Path, tables: EndpointTables) -> pl.DataFrame:
    """What one machine would have written about the records, by id."""
    from evaluators.runs.record_scores import columns_of, scores_of

    local = IsolatedEvaluator(EvaluatorSpec("travelling"), tmp_path)
    try:
        records = tables.payload.scan().select(columns_of(local, tables.payload.schema.names)).collect()
        scores = scores_of(records, local)
    finally:
        local.close()
    return pl.DataFrame(
        {
            ID: records[ID],
            "score": [score.value for score in scores],
            "unscored_reason": [score.unscored_reason for score in scores],
            "details": [json.dumps(dict(score.details)) for score in scores],
        }
    ).sort(ID)


def test_scores_are_the_local_ones_and_both_nodes_work(on_ray: Make, tmp_path: Path) -> None:
    evaluator = on_ray(timeout_s=1.0)
    assert (evaluator.name, evaluator.version, evaluator.model) == ("travelling", "7", "rules")
    assert (evaluator.target, evaluator.device, evaluator.columns) == ("response", "cpu", ())
    bad = {7: "hang", 40: "raise", 90: "segfault", 150: "nan"}
    batch = texts(*(bad.get(index, "x" * index) for index in range(200)))
    local = IsolatedEvaluator(EvaluatorSpec("travelling"), tmp_path, timeout_s=1.0)
    try:
        expected = local.score(batch)
    finally:
        local.close()
    scores = evaluator.score(batch)
    assert outcome(scores) == outcome(expected)
    assert [outcome(scores)[index] for index in bad] == [TIMED_OUT, MODEL_ERROR, WORKER_DIED, NOT_FINITE]
    assert (scores[3].details, scores[3].vectors) == (expected[3].details, expected[3].vectors)
    assert labels(scores) - {None} == {"first", "second"}
    assert evaluator.score([]) == []
    # A record that ends the actor itself, again and again, costs only itself as well.
    found = outcome(evaluator.score(texts(*["fine", "kill actor", *["fine"] * 4])))
    assert (found[1], found.count(4.0)) == (WORKER_DIED, 5)


def test_nodes_read_the_tables_themselves_and_lose_no_record_when_one_of_them_dies(
    nodes: TwoNodes,
    on_ray: Make,
    tables: EndpointTables,
    history: RunHistory,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    diary = tmp_path / "diary"
    diary.mkdir()
    evaluator = on_ray(diary=str(diary))
    responses = ["slow", None, "  ", *("x" * length for length in range(57))] * 10
    for part in range(2):
        tables.payload.append(
            payload_rows(
                300,
                START + timedelta(milliseconds=300 * part),
                response_text=responses[300 * part : 300 * part + 300],
                logging_error_codes=[
                    ["MAX_RESPONSE_SIZE_EXCEEDED"] if row == 61 else [] for row in range(300)
                ],
            )
        )
    runner = EvaluationRunner(tables, ENDPOINT, evaluator, history, clock, max_rows=evaluator.batch_rows)
    first = runner.run()
    expected = local_scores(tmp_path, tables)
    written = tables.scores.scan().collect().sort(ID)
    assert written.select(expected.columns).equals(expected)
    assert first.unscored_reasons == {NO_TEXT: 28, PAYLOAD_TOO_LARGE: 2}
    assert set(written["label"].drop_nulls()) == {"first", "second"}
    assert (first.from_version, first.to_version) == (None, tables.payload.version())

    tables.payload.append(payload_rows(400, START + timedelta(hours=1), response_text="slow"))
    for each in diary.iterdir():
        each.unlink()
    failed: list[BaseException] = []
    thread = threading.Thread(target=lambda: _run(runner, failed))
    thread.start()
    await_that(lambda: (diary / "second").exists(), "the second node scores")
    nodes.lose()
    thread.join(120)
    assert (thread.is_alive(), failed) == (False, [])
    written = tables.scores.scan().collect().sort(ID)
    assert written[ID].equals(tables.payload.scan().collect()[ID].sort())
    assert written["score"].to_list()[600:] == [4.0] * 400

    nodes.add()  # and what was lost is replaced, without a restart
    await_that(lambda: labels(evaluator.score(texts(*["slow"] * 100))) == {"first", "second"}, "it is back")
    gone = tables.payload.scan().select("request_date", ID).head(3).collect()
    delete_keys(tables.payload, ID, gone[ID].to_list()[:1])
    assert outcome(evaluator.score_records(tables.payload, gone))[0] == RECORD_GONE
    assert RECORD_GONE not in outcome(evaluator.score_records(tables.payload, gone))[1:]


def _run(runner: EvaluationRunner, failed: list[BaseException]) -> None:
    try:
        runner.run()
    except BaseException as error:
        failed.append(error)
        raise


def test_texts_and_columns_can_be_sent_instead(
    on_ray: Make, tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    evaluator = on_ray(ANYWHERE, columns=["status_code"], read_on_nodes=False)
    tables.payload.append(payload_rows(3, START, status_code=[200, 404, 502], response_text=None))
    EvaluationRunner(tables, ENDPOINT, evaluator, history, clock).run()
    assert tables.scores.scan().collect().sort(ID)["score"].to_list() == [200, 404, 502]
    evaluator.close()
    reading = on_ray(ANYWHERE, columns=["status_code"])
    records = tables.payload.scan().collect()
    assert outcome(reading.score_records(tables.payload, records)) == [200, 404, 502]


def test_more_than_the_cluster_has_is_said_within_the_time_that_was_given(on_ray: Make) -> None:
    began = time.monotonic()
    with pytest.raises(
        Unavailable, match=r"num_gpus=4; the cluster has 4 CPUs .* and 1 GPUs \(1 free\)"
    ) as told:
        on_ray(Actors(2, num_cpus=1, num_gpus=4), placement_timeout_s=2.0).score(texts("fine"))
    assert time.monotonic() - began < 30
    assert "placement_timeout_s" in str(told.value.fix)


def test_two_actors_share_a_gpu(on_ray: Make) -> None:
    scores = on_ray(Actors(2, num_cpus=0, num_gpus=0.5)).score(texts(*["gpu"] * 100))
    assert {score.value for score in scores} == {0.0}


def test_nodes_with_different_models_are_refused(on_ray: Make) -> None:
    with pytest.raises(Unavailable, match=r"version '7 (first|second)' on .*, '7 (first|second)' on"):
        on_ray(versions="of the node").score(texts("fine"))


def test_nodes_without_our_packages_are_an_error_that_says_so(on_ray: Make, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['evaluators'] = None  # as if it were not there"
    )
    without = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
    with pytest.raises(Unavailable, match="evaluators") as told:
        on_ray(ANYWHERE, runtime_env=without).score(texts("fine"))
    assert "cannot start an actor" in str(told.value)
    assert "servelens[ray] is installed" in str(told.value.fix)


def test_a_call_can_be_given_up_and_a_driver_that_is_killed_takes_all_with_it(on_ray: Make) -> None:
    evaluator = on_ray(ANYWHERE, timeout_s=300)
    (scored,) = evaluator.score(texts("pid"))
    assert evaluator.process_id is not None
    os.kill(evaluator.process_id, signal.SIGKILL)
    await_that(lambda: not psutil.pid_exists(int(scored.value or 0)), "the model's process ends")
    (again,) = evaluator.score(texts("pid"))  # as the next run does
    assert again.value != scored.value
    raised: list[str] = []

    def ask() -> None:
        try:
            evaluator.score(texts("hang"))
        except Unavailable as error:
            raised.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    evaluator.abort()
    thread.join(20)
    assert "stopped" in raised[0]


def test_a_backfill_and_a_scheduled_run_by_command(nodes: TwoNodes, tmp_path: Path) -> None:
    config = tmp_path / "servelens.yaml"
    evaluation = {"endpoint": "chat", "evaluator": "travelling", "engine": "ray", "ray": {"num_cpus": 0}}
    config.write_text(
        yaml.safe_dump(
            {
                "data_dir": "data",
                "maintenance": {"enabled": False},
                "endpoints": [{"name": "chat", "config": {"served_entities": [backend()]}}],
                "evaluations": [evaluation],
                "ray": {"address": nodes.address, "actors": 2},
            }
        )
    )
    settings, clock = load_settings(config), SystemClock()
    database = build_database(settings)
    catalog = build_catalog(settings, open_endpoint_store(settings, database, clock))
    open_evaluations(settings, catalog, database, clock)
    database.dispose()
    tables = build_catalog(settings).tables("chat")
    start = datetime.now(UTC) - timedelta(hours=1)
    tables.payload.append(payload_rows(150, start))
    backfill = ("evaluation", "backfill", "--endpoint", "chat", "--evaluator", "travelling", "--json")
    done = _command(nodes, config, *backfill, "--since", f"{start - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}Z")
    assert json.loads(done) == {"scored": 150, "unscored": {}, "left": 0}
    tables.payload.append(payload_rows(60, start + timedelta(minutes=1)))
    _command(nodes, config, "scheduler", "--once")
    scores = tables.scores.scan().collect().sort(ID)
    assert scores[ID].equals(tables.payload.scan().collect()[ID].sort())
    assert scores["score"].to_list() == [6.0] * 210


def _command(nodes: TwoNodes, config: Path, *arguments: str) -> str:
    path = os.pathsep.join(
        [str(nodes.site), str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-m", "servelens", *arguments, "--config", str(config)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
