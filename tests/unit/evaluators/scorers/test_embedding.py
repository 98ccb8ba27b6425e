from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from evaluators.scorers.embedding import Embedding
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
