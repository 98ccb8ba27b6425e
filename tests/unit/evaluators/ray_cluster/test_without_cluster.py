"""What needs no cluster: what is asked of it, how a batch is divided, and what is said when there is none."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.evaluator import Text
from evaluators.ray_cluster.actor import ScoringActor
from evaluators.ray_cluster.evaluator import RayEvaluator
from evaluators.ray_cluster.placement import Actors, RayCluster
from evaluators.ray_cluster.portion import LARGEST, SMALLEST, Portion, TableAddress, slices
from evaluators.registry import EvaluatorSpec
from evaluators.runs.evaluation import Evaluation
from servelens.errors import Invalid, Missing, ServelensError, Unavailable
from servelens.evaluation_settings import EvaluationSettings, RaySettings
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows
from tests.unit.evaluators.runs.test_runner import START

REPOSITORY = Path(__file__).parents[4]


def refused(evaluator: RayEvaluator) -> ServelensError:
    try:
        with pytest.raises(ServelensError) as told:
            evaluator.score([Text("?", "fine")])
    finally:
        evaluator.close()
    return told.value


@given(count=st.integers(0, 20_000), actors=st.integers(1, 40))
def test_a_batch_is_divided_evenly_and_whole(count: int, actors: int) -> None:
    parts = slices(count, actors)
    assert [index for part in parts for index in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes, default=0) <= LARGEST
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(sizes) < 2 or min(sizes) >= SMALLEST
    if count >= 2 * actors * SMALLEST:
        assert len(sizes) >= 2 * actors


def test_an_address_that_nobody_is_at_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    error = refused(RayEvaluator(EvaluatorSpec("length"), tmp_path, RayCluster(address)))
    assert isinstance(error, Unavailable)
    assert f"no Ray cluster answers at {address}" in str(error)
    assert "ray start" in str(error.fix)
    assert time.monotonic() - began < 30


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = refused(RayEvaluator(EvaluatorSpec("length"), tmp_path, RayCluster("127.0.0.1:6379")))
    assert isinstance(error, Missing)
    assert "pip install 'servelens[ray]'" in str(error)


@pytest.mark.parametrize("seen", ["nothing", "an older version"])
def test_a_node_that_does_not_see_the_table_says_so(tmp_path: Path, seen: str) -> None:
    tables = endpoint_tables(tmp_path)
    if seen == "an older version":
        tables.payload.append(payload_rows(1, START))
    actor = ScoringActor(EvaluatorSpec("length").to_json(), str(tmp_path), (), 1, 60.0, 60.0)
    with closing(actor):
        kind, error = actor.score(Portion(0, ["an-id"], TableAddress(tables.payload.uri, 17)))
    assert (kind, error[0]) == ("refused", "Unavailable")
    assert "not 17" in error[1]
    assert "read_on_nodes" in error[3]


def test_the_scheduler_does_not_import_ray() -> None:
    code = "import sys, servelens.processes.scheduler, evaluators.ray_cluster.driver; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=120)


def test_secrets_are_not_shown() -> None:
    cluster = RayCluster(runtime_env={"env_vars": {"TOKEN": "very secret"}})
    address = TableAddress("s3://bucket/table", 1, {"aws_secret_access_key": "very secret"})
    portion = Portion(0, ["an-id"], address)
    assert "very secret" not in f"{cluster!r} {address!r} {portion!r}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "ray://head:10001"}, "Ray Client is not supported"),
        ({"address": "head"}, "'head' is no address"),
        ({"num_gpus": 1.5}, "cannot be given out"),
        ({"actors": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaySettings.model_validate(settings)


def test_an_evaluation_has_of_the_cluster_what_it_says_and_else_what_all_have() -> None:
    written = {"endpoint": "chat", "evaluator": "length", "engine": "ray", "ray": {"actors": 3}}
    evaluation = EvaluationSettings.model_validate(written).build()
    assert Evaluation.from_dict(evaluation.to_dict()) == evaluation
    assert evaluation.actors_on(RayCluster(actors=Actors(1, 2, 0.5))) == Actors(3, 2, 0.5)
    with pytest.raises(Invalid, match="engine 'ray' only"):
        Evaluation("a", "chat", EvaluatorSpec("length"), ray={"actors": 3})


def test_an_actor_with_several_gpus_has_a_worker_on_each() -> None:
    assert Actors(1, 1, 2).devices == ("cuda:0", "cuda:1")
    assert Actors(1, 1, 0.5).devices == Actors(1, 1, 1).devices == ()
