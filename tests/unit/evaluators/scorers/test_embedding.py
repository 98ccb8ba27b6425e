from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from collector.record import RESPONSE_TOO_LARGE
from evaluators.evaluator import EMPTY, MODEL_ERROR, NOT_FINITE, Evaluator, Text
from evaluators.registry import JSON, EvaluatorSpec, build
from evaluators.scorers.embedding import PAYLOAD_TOO_LARGE, Embedding
from servelens.errors import Invalid, Missing
from tests.unit.evaluators import tiny_models


class Plain:
    """One text at a time, without padding or mask."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(self, text: str) -> list[float]:
        tokens = self._tokenizer(text, return_tensors="pt")["input_ids"]
        mean = self._model(input_ids=tokens).last_hidden_state[0].mean(0)
        vector: list[float] = (mean / mean.norm()).tolist()
        return vector


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_vectors_equal_the_plain_computation_whatever_the_batches(tmp_path: Path, batch_tokens: int) -> None:
    folder = tiny_models.encoder(tmp_path / "encoder")
    chance = random.Random(2)
    texts = [" ".join(chance.choices(tiny_models.WORDS, k=chance.randint(1, 20))) for _ in range(12)]
    vectors = Embedding(str(folder), device="cpu", batch_tokens=batch_tokens).embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (12, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    plain = Plain(folder)
    for text, vector in zip(texts, vectors, strict=True):
        assert vector.tolist() == pytest.approx(plain.embed(text), abs=1e-5)


def test_long_texts_are_cut_and_empty_ones_have_a_vector(tmp_path: Path) -> None:
    embedding = Embedding(str(tiny_models.encoder(tmp_path / "encoder")), device="cpu", max_length=8)
    short, long, empty = embedding.embed(["cat " * 7 + "cat", "cat " * 500, ""])
    assert np.isfinite(empty).all()
    assert long == pytest.approx(embedding.embed(["cat " * 60])[0], abs=1e-6)
    assert np.isfinite(short).all()


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    assert Embedding(str(tiny_models.encoder(tmp_path / "encoder")), device="cpu").embed([]).shape == (0, 16)


def test_a_text_that_the_model_fails_on_is_a_row_of_nan(tmp_path: Path) -> None:
    folder = tiny_models.encoder(tmp_path / "encoder")
    loaded = AutoTokenizer.from_pretrained(folder)
    # A word that the tokenizer has and the embedding has not: reading it raises an IndexError.
    loaded.add_tokens(["elephant"])
    loaded.save_pretrained(folder)
    good, bad, half = Embedding(str(folder), device="cpu").embed(["the cat", "the elephant", "\ud83d cat"])
    assert np.isfinite(good).all()
    assert np.isnan(bad).all()
    assert np.isfinite(half).all()


@pytest.mark.models
def test_like_texts_are_near_and_others_far(models_dir: Path) -> None:
    vectors = Embedding(str(models_dir / "all-minilm-l6-v2"), device="cpu").embed(
        [
            "How do I reset my password?",
            "I forgot my login, please help me sign in.",
            "The river floods every spring.",
        ]
    )
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5
    assert likeness[0, 2] < 0.2


def test_the_score_is_the_cosine_of_prompt_and_answer_and_keeps_both_vectors(tmp_path: Path) -> None:
    folder = tiny_models.encoder(tmp_path / "encoder")
    embedding = Embedding(str(folder), device="cpu")
    assert isinstance(embedding, Evaluator)
    plain = Plain(folder)
    pairs = [("the cat sat", "the dog ran far"), ("the cat sat", "the cat sat"), ("dog", "home and away")]
    scores = embedding.score([Text(prompt=prompt, response=answer) for prompt, answer in pairs])
    for (prompt, answer), score in zip(pairs, scores, strict=True):
        expected = np.dot(plain.embed(prompt), plain.embed(answer))
        assert score.value == pytest.approx(expected, abs=1e-5)
        assert score.vectors["request"] == pytest.approx(plain.embed(prompt), abs=1e-5)
        assert score.vectors["response"] == pytest.approx(plain.embed(answer), abs=1e-5)
    assert scores[1].value == pytest.approx(1.0, abs=1e-6)
    # The encoder's own <s> counts: it is a token that was read.
    assert scores[0].details == {"request_tokens": 4.0, "response_tokens": 5.0}


def test_a_record_with_one_side_is_unscored_with_that_sides_vector(tmp_path: Path) -> None:
    embedding = Embedding(str(tiny_models.encoder(tmp_path / "encoder")), device="cpu")
    cut = {"logging_error_codes": [RESPONSE_TOO_LARGE]}
    asked, answered, neither, large = embedding.score(
        [
            Text(prompt="the cat", response=None),
            Text(prompt=" \n", response="the dog"),
            Text(prompt=None, response=""),
            Text(prompt="the cat", response=None, columns=cut),
        ]
    )
    assert (asked.unscored_reason, set(asked.vectors), asked.details["missing"]) == (
        EMPTY,
        {"request"},
        "response",
    )
    assert (answered.unscored_reason, set(answered.vectors)) == (EMPTY, {"response"})
    assert (neither.unscored_reason, dict(neither.vectors)) == (EMPTY, {})
    assert neither.details["missing"] == "request and response"
    assert (large.unscored_reason, set(large.vectors)) == (PAYLOAD_TOO_LARGE, {"request"})


def test_a_side_that_the_model_fails_on_costs_neither_the_other_side_nor_the_batch(tmp_path: Path) -> None:
    folder = tiny_models.encoder(tmp_path / "encoder")
    loaded = AutoTokenizer.from_pretrained(folder)
    loaded.add_tokens(["elephant"])
    loaded.save_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[(tiny_models.SPECIAL + tiny_models.WORDS).index("poison")] = (
            torch.nan
        )
    model.save_pretrained(folder)
    failed, nan, good = Embedding(str(folder), device="cpu").score(
        [
            Text(prompt="the cat", response="an elephant"),
            Text(prompt="poison", response="the cat"),
            Text(prompt="\ud83d cat", response="the dog"),
        ]
    )
    assert (failed.unscored_reason, set(failed.vectors)) == (MODEL_ERROR, {"request"})
    assert "IndexError" in str(failed.details["error"])
    assert (nan.unscored_reason, set(nan.vectors)) == (NOT_FINITE, {"response"})
    assert good.value is not None


def test_pooling_by_the_first_token_and_other_lengths_are_other_versions(tmp_path: Path) -> None:
    folder = str(tiny_models.encoder(tmp_path / "encoder"))
    mean, cls, short = (
        Embedding(folder, device="cpu", **options) for options in ({}, {"pooling": "cls"}, {"max_length": 8})
    )
    assert len({mean.version, cls.version, short.version}) == 3
    inner = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids = AutoTokenizer.from_pretrained(folder)("the cat", return_tensors="pt")["input_ids"]
        first = torch.nn.functional.normalize(inner(input_ids=ids).last_hidden_state[0, 0], dim=0)
    assert cls.embed(["the cat"])[0] == pytest.approx(first.numpy(), abs=1e-5)


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"max_length": 2}, {"device": "tpu"}])
def test_options_that_make_no_sense_are_invalid(tmp_path: Path, options: dict[str, JSON]) -> None:
    folder = tiny_models.encoder(tmp_path / "encoder")
    with pytest.raises(Invalid, match=r"evaluators\[embedding\]"):
        build(EvaluatorSpec("embedding", {"model": str(folder), **options}), tmp_path)


def test_without_the_offline_model_the_fix_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="models prepare"):
        build(EvaluatorSpec("embedding"), tmp_path)


@pytest.mark.models
def test_an_answer_to_the_point_scores_higher_than_one_beside_it(models_dir: Path) -> None:
    evaluator = build(EvaluatorSpec("embedding", {"device": "cpu"}), models_dir)
    question = "What is the capital of France?"
    near, far = evaluator.score(
        [
            Text(prompt=question, response="The capital of France is Paris."),
            Text(prompt=question, response="Preheat the oven and knead the dough for ten minutes."),
        ]
    )
    assert near.value is not None
    assert far.value is not None
    assert near.value > 0.6
    assert far.value < 0.2
    assert evaluator.model == "all-minilm-l6-v2"
