"""relabel.selection.text_vectors and recent_vectors: nearly the same text is near, other text is not, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel.selection import recent_vectors
from relabel.selection.recent_vectors import RecentVectors, likeness
from relabel.selection.suppression import Suppression
from relabel.selection.text_vectors import DIMENSIONS, text_vectors

NEAR = Suppression().near_duplicate
QUESTION = "How do I reset the password of my account if I cannot read the e-mail address I signed up with?"


def cosine(first: str, second: str) -> float:
    one, other = text_vectors([first, second])
    return float(one @ other)


@pytest.mark.parametrize(
    "again",
    [
        QUESTION.upper(),
        QUESTION.replace(" ", "  ") + "\n",
        QUESTION.replace("password", "pasword"),
        QUESTION.replace("?", ""),
        QUESTION + " Thanks!",
    ],
)
def test_nearly_the_same_text_is_a_near_duplicate(again: str) -> None:
    assert NEAR is not None
    assert cosine(QUESTION, again) >= NEAR


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (QUESTION, QUESTION.replace("password", "photograph")),
        (QUESTION, "How do I delete my account if I cannot read the e-mail address I signed up with?"),
        ("What is 17 times 23?", "What is 18 times 23?"),
        ("question 1100", "question 1101"),
        ("Is it safe?", "Is it not safe?"),
        ("", "text"),
        ("!", "?"),
    ],
)
def test_another_text_is_not(first: str, second: str) -> None:
    assert NEAR is not None
    assert cosine(first, second) < NEAR


def test_texts_that_have_nothing_in_common_are_far_apart() -> None:
    random = np.random.default_rng(7)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, random.integers(3, 9))) for _ in range(2_000)]
    texts = [" ".join(random.choice(words, 50)) for _ in range(300)]
    vectors = text_vectors(texts)
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, 0.0)
    assert alike.max() < 0.5
    assert abs(alike.mean()) < 0.05


@given(st.lists(st.text(max_size=80), min_size=1, max_size=70))
@settings(max_examples=30, deadline=None)
def test_every_text_has_a_vector_of_length_one_that_its_neighbours_do_not_change(texts: list[str]) -> None:
    together = text_vectors(texts)
    assert together.shape == (len(texts), DIMENSIONS)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)
    alone = np.concatenate([text_vectors([text]) for text in texts])
    assert np.array_equal(together, alone)


def test_half_a_surrogate_pair_and_a_book_have_vectors() -> None:
    broken, book = text_vectors(["half \ud83d a pair", "the same words over and over " * 50_000])
    assert np.isfinite(broken).all()
    assert np.isfinite(book).all()


def test_two_records_are_as_alike_as_the_less_alike_of_their_sides() -> None:
    half = np.sqrt(0.5)
    one = np.array([[half, 0, half, 0]], np.float32)
    others = np.array([[half, 0, 0, half], [half, 0, half, 0]], np.float32)
    assert likeness(one, others) == pytest.approx(np.array([[0.0, 1.0]]), abs=1e-6)


def test_only_the_newest_vectors_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_vectors, "MOST", 300)
    random = np.random.default_rng(1)
    rows = random.normal(size=(1_000, 8)).astype(np.float32)
    rows[:, :4] /= np.linalg.norm(rows[:, :4], axis=1, keepdims=True) * np.sqrt(2)
    rows[:, 4:] /= np.linalg.norm(rows[:, 4:], axis=1, keepdims=True) * np.sqrt(2)
    recent = RecentVectors(8)
    assert recent.nearest(rows[:1])[0].case_id is None
    for first in range(0, 1_000, 70):
        ids = list(range(first, min(first + 70, 1_000)))
        recent.add(rows[ids], ids, [case_id - case_id % 2 for case_id in ids])
    found = recent.nearest(rows)
    newest = [place for place, near in enumerate(found) if near.case_id == place]
    assert newest == list(range(700, 1_000))
    assert all(near.cluster is not None and near.cluster % 2 == 0 for near in found)
    assert found[800].to_leader == pytest.approx(1.0, abs=1e-5)
    recent.add(rows, list(range(1_000, 2_000)), list(range(1_000, 2_000)))  # more than there is room for
    assert recent.nearest(rows[900:901])[0].case_id == 1_900


@pytest.mark.models
def test_embeddings_tell_paraphrases_from_other_texts_at_the_default(models_dir: Path) -> None:
    from evaluators.scorers.embedding import Embedding

    pairs = [
        ("How do I reset my password?", "How can I reset my password?", True),
        ("Where is my order?", "Where's my order?", True),
        ("The river floods every spring.", "Every spring, the river floods.", True),
        ("How do I reset my password?", "How do I delete my account?", False),
        ("Where is my order?", "Where is my refund?", False),
        ("It is safe to drink.", "What is the capital of France?", False),
    ]
    embedding = Embedding(str(models_dir / "all-minilm-l6-v2"), device="cpu")
    vectors = embedding.embed([text for first, second, _ in pairs for text in (first, second)])
    assert NEAR is not None
    for place, (first, second, same) in enumerate(pairs):
        alike = float(vectors[2 * place] @ vectors[2 * place + 1])
        assert (alike >= NEAR) == same, (first, second, alike)
