from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from collector.catalog import EMBEDDING_SCHEMA, EndpointTables
from evaluators.drift.embedding_columns import EmbeddingColumns
from evaluators.drift.sketches.vectors import VectorSketch
from evaluators.drift.vector_distances import vector_drift
from evaluators.drift.window_data import observe
from evaluators.drift.windows import Granularity
from evaluators.evaluator import Text
from evaluators.registry import EvaluatorSpec, build
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows

HOUR = Granularity.parse("1 hour")
CURRENT = HOUR.containing(datetime(2026, 3, 4, 11, 30, tzinfo=UTC))
REFERENCE = HOUR.before(CURRENT)


def vector_rows(
    payload: pl.DataFrame,
    vectors: Sequence[Sequence[float]],
    *,
    target: str = "request",
    model: str = "minilm",
    version: str = "1",
    after: timedelta = timedelta(0),
) -> pl.DataFrame:
    kept = payload.select(
        name for name in payload.columns if name in EMBEDDING_SCHEMA.names and name != "model"
    )
    return kept.with_columns(
        pl.lit(target).alias("target"),
        pl.lit(model).alias("model"),
        pl.lit(version).alias("evaluator_version"),
        pl.Series("vector", [list(vector) for vector in vectors], dtype=pl.List(pl.Float32)),
        (pl.col("request_time") + after).alias("embedded_at"),
    )


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(tmp_path)


def test_each_side_is_a_column_of_the_vectors_in_the_window(tables: EndpointTables) -> None:
    payload = payload_rows(4, CURRENT.start)
    tables.payload.append(payload)
    tables.embeddings.append(vector_rows(payload, np.eye(4).tolist()))
    tables.embeddings.append(vector_rows(payload[:2], np.eye(4)[2:].tolist(), target="response"))
    earlier = payload_rows(3, REFERENCE.start)
    tables.embeddings.append(vector_rows(earlier, np.eye(4)[:3].tolist()))
    observation = observe(tables, CURRENT, sources=[EmbeddingColumns()])
    assert [(column.name, column.kind) for column in observation.columns] == [
        ("prompt_embedding", "vector"),
        ("response_embedding", "vector"),
    ]
    prompts = VectorSketch.of(observation.frame["prompt_embedding"])
    answers = VectorSketch.of(observation.frame["response_embedding"])
    assert (prompts.count, answers.count, answers.nulls) == (4, 2, 2)
    assert prompts.parts["minilm@1", 4].total == pytest.approx(np.ones(4))
    assert answers.parts["minilm@1", 4].total == pytest.approx([0, 0, 1, 1])


def test_without_vectors_there_is_no_column(tables: EndpointTables) -> None:
    assert EmbeddingColumns().read(tables, CURRENT).columns == ()
    tables.payload.append(payload_rows(2, CURRENT.start))
    assert observe(tables, CURRENT, sources=[EmbeddingColumns()]).columns == ()


def test_of_several_models_the_one_with_most_of_the_window_counts_then_the_newest(
    tables: EndpointTables,
) -> None:
    payload = payload_rows(5, CURRENT.start)
    tables.embeddings.append(vector_rows(payload, [[1.0, 0.0]] * 5, version="1"))
    tables.embeddings.append(
        vector_rows(payload[:4], [[0.0, 1.0]] * 4, version="2", after=timedelta(minutes=1))
    )
    read = EmbeddingColumns().read(tables, CURRENT).frame["prompt_embedding"]
    assert VectorSketch.of(read).parts.keys() == {("minilm@1", 2)}
    tables.embeddings.append(vector_rows(payload[4:], [[0.0, 1.0]], version="2", after=timedelta(minutes=1)))
    read = EmbeddingColumns().read(tables, CURRENT).frame["prompt_embedding"]
    assert VectorSketch.of(read).parts.keys() == {("minilm@2", 2)}


def test_of_many_records_a_sample_is_read_that_does_not_depend_on_the_order(
    tables: EndpointTables, tmp_path: Path
) -> None:
    payload = payload_rows(60, CURRENT.start)
    rows = vector_rows(payload, np.random.default_rng(1).normal(size=(60, 3)).tolist())
    tables.embeddings.append(rows[:20])
    tables.embeddings.append(rows[20:])
    other = endpoint_tables(tmp_path / "other")
    other.embeddings.append(rows.reverse())
    one, same = (
        EmbeddingColumns(most=25).read(each, CURRENT).frame.sort("databricks_request_id")
        for each in (tables, other)
    )
    assert one.height == 25
    assert one.equals(same)


BILLING = ("invoice", "refund", "credit card", "subscription", "receipt", "payment")
COOKING = ("soup", "bread", "roast chicken", "salad", "pancakes", "tomato sauce")
BILLING_QUESTIONS = (
    "Why was my {} charged twice?",
    "How do I get a copy of the {} for last month?",
    "Please cancel my {}.",
    "The {} failed, what now?",
    "Where can I see the status of my {}?",
    "My {} shows the wrong amount.",
    "Can I change the {} details?",
    "Who do I contact about a {}?",
    "Is there a fee for the {}?",
    "When will my {} be processed?",
)
COOKING_QUESTIONS = (
    "How long do I cook {}?",
    "Which spices go well with {}?",
    "Can I freeze {}?",
    "Why is my {} too salty?",
    "A quick recipe for {}, please.",
)


@pytest.mark.models
def test_a_new_topic_is_found_among_real_embeddings_and_the_same_topics_are_not(models_dir: Path) -> None:
    evaluator = build(EvaluatorSpec("embedding", {"device": "cpu"}), models_dir)
    billing = [question.format(word) for word in BILLING for question in BILLING_QUESTIONS]
    cooking = [question.format(word) for word in COOKING for question in COOKING_QUESTIONS]
    scored = evaluator.score([Text(prompt=text, response=None) for text in [*billing, *cooking]])
    vectors = np.array([score.vectors["request"] for score in scored])
    about = np.random.default_rng(5).permutation(len(billing))

    def sketch(rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> VectorSketch:
        return VectorSketch.of(pl.Series(rows.tolist(), dtype=pl.List(pl.Float32)))

    reference, same = sketch(vectors[about[:30]]), sketch(vectors[about[30:]])
    unchanged = vector_drift(same, reference, 20)
    assert unchanged["embedding_test"]["pvalue"] > 0.05
    assert unchanged["domain_classifier_auc_interval"]["low"] < 0.5
    cooks = vectors[len(billing) :]
    # A third of the questions are about something new.
    mixed = vector_drift(sketch(np.concatenate([vectors[about[30:50]], cooks[::3]])), reference, 20)
    assert mixed["embedding_test"]["pvalue"] < 0.01
    assert mixed["embedding_distance"] > unchanged["embedding_distance"]
    other = vector_drift(sketch(cooks), reference, 20)
    assert other["domain_classifier_auc"] > 0.99
    assert other["domain_classifier_auc_interval"]["low"] > 0.8
    assert other["embedding_distance"] > 0.5
