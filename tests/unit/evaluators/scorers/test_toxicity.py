"""Toxicity against the published answers of the original network, and against its definition written out in numpy."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from evaluators.evaluator import EMPTY, MODEL_ERROR, NOT_FINITE, Evaluator, Text
from evaluators.scorers.toxicity import PIECE_WORDS, UNKNOWN_WORDS, Toxicity, even_pieces
from evaluators.scorers.toxicity_network import VOCABULARY, WordVocabulary
from tests.unit.evaluators import tiny_models

TOLERANCE = 1e-5
"""Absolute; what float32 sums in another order differ by."""

PUBLISHED = {
    "I will kill you, you fucking idiot!": {
        "toxic": 0.9998680353164673,
        "severe_toxic": 0.7870364189147949,
        "obscene": 0.9885633587837219,
        "threat": 0.8483908176422119,
        "insult": 0.9883397221565247,
        "identity_hate": 0.1710592657327652,
    },
    "Good morning my friend, I hope you're having a fantastic day!": {
        "toxic": 0.05347811430692673,
        "severe_toxic": 0.0006274021579883993,
        "obscene": 0.004466842859983444,
        "threat": 0.009578478522598743,
        "insult": 0.00757843442261219,
        "identity_hate": 0.002106667961925268,
    },
    "I do strongly disagree with the fascist views of this joke that calls itself a political party.": {
        "toxic": 0.026190076023340225,
        "severe_toxic": 7.185135473264381e-05,
        "obscene": 0.0009493605466559529,
        "threat": 0.00012321282702032477,
        "insult": 0.0029190618079155684,
        "identity_hate": 0.0022098885383456945,
    },
}
"""From the README of tox-block 0.1.2, computed with TensorFlow and rescaled to the ranges below."""

RANGES = {
    "toxic": (0.002116, 0.999858),
    "severe_toxic": (0.000011, 0.648682),
    "obscene": (0.000347, 0.997533),
    "threat": (0.000040, 0.918887),
    "insult": (0.000373, 0.986303),
    "identity_hate": (0.000074, 0.901117),
}


@pytest.mark.models
@pytest.mark.parametrize("text", PUBLISHED)
def test_the_network_answers_what_the_original_answered(models_dir: Path, text: str) -> None:
    (score,) = Toxicity(models_dir / "toxicity", device="cpu").score([Text(None, text)])
    for label, published in PUBLISHED[text].items():
        low, high = RANGES[label]
        rescaled = abs(float(score.details[label]) - low) / (high - low)
        assert rescaled == pytest.approx(published, abs=TOLERANCE)


@pytest.mark.models
def test_one_abusive_sentence_in_a_long_polite_answer_is_found(models_dir: Path) -> None:
    toxicity = Toxicity(models_dir / "toxicity", device="cpu")
    polite = "Thank you for your help, it was very kind of you. " * 40
    clean, mixed = toxicity.score(
        [Text(None, polite), Text(None, f"{polite} Shut up, you stupid moron. {polite}")]
    )
    assert (clean.label, mixed.label) == ("ok", "toxic")


def by_definition(folder: Path, text: str) -> list[float]:
    """The network as Keras 2 defines it, one step and one direction at a time, in float64."""
    config = json.loads((folder / "config.json").read_text())
    weights = {
        name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()
    }
    vocabulary = json.loads((folder / VOCABULARY).read_text())
    cleaned = "".join(" " if character in config["separators"] else character for character in text.lower())
    known = [vocabulary[word] for word in cleaned.split() if word in vocabulary]
    row = ([0] * config["max_length"] + known)[-config["max_length"] :]
    hidden = config["hidden_size"]
    peaks = []
    for direction, order in enumerate((row, row[::-1])):
        state, cell = np.zeros(hidden), np.zeros(hidden)
        states = []
        for number in order:
            gates = (
                weights["embedding.weight"][number] @ weights["kernel"][direction]
                + state @ weights["recurrent_kernel"][direction]
                + weights["bias"][direction]
            )
            into, forget, candidate, out = np.split(gates, 4)
            into, forget, out = (np.clip(0.2 * gate + 0.5, 0, 1) for gate in (into, forget, out))
            cell = forget * cell + into * np.tanh(candidate)
            state = out * np.tanh(cell)
            states.append(state)
        peaks.append(np.max(states, axis=0))
    dense = np.maximum(0, weights["dense.weight"] @ np.concatenate(peaks) + weights["dense.bias"])
    answer: list[float] = (
        1 / (1 + np.exp(-(weights["output.weight"] @ dense + weights["output.bias"])))
    ).tolist()
    return answer


def texts(count: int, longest: int) -> list[str]:
    chance = random.Random(9)
    words = [word for word in tiny_models.WORDS if word not in ("poison", "home")]
    return [
        " ".join(chance.choices([*words, "zebra"], k=chance.randint(1, longest))) + " cat"
        for _ in range(count)
    ]


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_scores_equal_the_definition_whatever_the_batches(tmp_path: Path, batch_size: int) -> None:
    folder = tiny_models.toxicity_network(tmp_path / "toxicity")
    toxicity = Toxicity(folder, device="cpu", batch_size=batch_size)
    batch = [*texts(30, 25), "The CAT, sat!on.the mat"]
    for text, score in zip(batch, toxicity.score([Text(None, text) for text in batch]), strict=True):
        labels = [score.details[label] for label in tiny_models.LABELS]
        assert labels == pytest.approx(by_definition(folder, text), abs=TOLERANCE)
        assert score.value == labels[0]
        assert score.label == ("toxic" if labels[0] >= 0.5 else "ok")


def test_a_long_text_has_the_highest_score_among_its_pieces(tmp_path: Path) -> None:
    folder = tiny_models.toxicity_network(tmp_path / "toxicity")
    words = [word for text in texts(20, 25) for word in text.split() if word != "zebra"]
    pieces = even_pieces(list(range(len(words))), PIECE_WORDS)
    assert len(pieces) > 2
    (score,) = Toxicity(folder, device="cpu").score([Text(None, " ".join(words))])
    parts = [by_definition(folder, " ".join(words[number] for number in piece)) for piece in pieces]
    expected = np.max(parts, axis=0)
    assert [score.details[label] for label in tiny_models.LABELS] == pytest.approx(expected, abs=TOLERANCE)


def test_what_cannot_be_scored_has_a_reason_and_the_rest_has_scores(tmp_path: Path) -> None:
    toxicity = Toxicity(tiny_models.toxicity_network(tmp_path / "toxicity"), device="cpu")
    answers = [
        "the cat sat",
        None,
        " ",
        "zebra zebra",
        "!!!",
        "eat the poison",
        "the dog ran home",
        "far away",
        "\ud83d cat",
    ]
    scores = toxicity.score([Text("the mat", answer) for answer in answers])
    reasons = [score.unscored_reason for score in scores]
    assert reasons == [None, EMPTY, EMPTY, UNKNOWN_WORDS, UNKNOWN_WORDS, NOT_FINITE, MODEL_ERROR, None, None]
    assert [scores[0]] == toxicity.score([Text(None, "the cat sat")])


def test_threshold_and_target(tmp_path: Path) -> None:
    folder = tiny_models.toxicity_network(tmp_path / "toxicity")
    text = Text("the dog", "far away")
    (asked,) = Toxicity(folder, device="cpu", target="request").score([text])
    (answered,) = Toxicity(folder, device="cpu").score([text])
    assert asked.value is not None
    assert asked.value != answered.value
    (above,) = Toxicity(folder, device="cpu", target="request", threshold=asked.value).score([text])
    (below,) = Toxicity(folder, device="cpu", target="request", threshold=asked.value + 1e-6).score([text])
    assert (above.label, below.label) == ("toxic", "ok")


def test_it_says_what_it_is(tmp_path: Path) -> None:
    folder = tiny_models.toxicity_network(tmp_path / "toxicity")
    toxicity = Toxicity(folder, device="cpu")
    assert isinstance(toxicity, Evaluator)
    assert (toxicity.name, toxicity.target, toxicity.device, toxicity.model) == (
        "toxicity",
        "response",
        "cpu",
        "toxicity",
    )
    assert Toxicity(folder, device="cpu", threshold=0.7).version != toxicity.version
    (folder / VOCABULARY).write_text("{}")
    assert Toxicity(folder, device="cpu").version != toxicity.version


@pytest.mark.parametrize("options", [{"target": "both"}, {"threshold": 1.5}, {"batch_size": 0}])
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    folder = tiny_models.toxicity_network(tmp_path / "toxicity")
    with pytest.raises(ValueError):  # noqa: PT011  # three messages
        Toxicity(folder, device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (60, [60]), (61, [30, 31]), (121, [40, 40, 41])])
def test_pieces_are_even(count: int, sizes: list[int]) -> None:
    pieces = even_pieces(list(range(count)), 60)
    assert [len(piece) for piece in pieces] == sizes
    assert [number for piece in pieces for number in piece] == list(range(count))


def test_words_are_split_as_keras_splits_them() -> None:
    vocabulary = WordVocabulary({"don't": 1, "stop": 2}, "!,\t\n")
    assert vocabulary.words("DON'T,stop\tnow!") == ["don't", "stop", "now"]
    assert vocabulary.numbers(["don't", "now", "stop"]) == [1, 2]
