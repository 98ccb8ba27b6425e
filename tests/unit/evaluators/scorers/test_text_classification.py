"""Text classification against the plain computation: one text, one window, one pass in float32."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evaluators.engine import classifier_model
from evaluators.evaluator import EMPTY, MODEL_ERROR, NOT_FINITE, OUT_OF_MEMORY, Evaluator, Text
from evaluators.scorers import toxicity
from evaluators.scorers.text_classification import TextClassification, split_text
from tests.unit.evaluators import tiny_classifiers, tiny_models

TOLERANCE = 1e-5
INTEGER_TOLERANCE = classifier_model.INTEGER_TOLERANCE


def sentences(count: int, longest: int, seed: int = 3) -> list[str]:
    chance = random.Random(seed)
    known = [word for word in tiny_models.WORDS if word != "poison"]
    return [" ".join(chance.choices(known, k=chance.randint(1, longest))) for _ in range(count)]


class Plain:
    """Probabilities of one window at a time."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def probabilities(self, text: str) -> list[float]:
        numbers = self._tokenizer(text, return_tensors="pt").input_ids
        logits = self._model(input_ids=numbers).logits[0]
        several = self._model.config.problem_type == "multi_label_classification"
        answer = torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)
        return [float(value) for value in answer]


@pytest.mark.parametrize("kind", tiny_classifiers.KINDS)
def test_scores_equal_the_plain_computation_whatever_the_batches(tmp_path: Path, kind: str) -> None:
    folder = tiny_classifiers.classifier(tmp_path / kind, kind)
    plain = Plain(folder)
    texts = sentences(24, 30)
    expected = {text: plain.probabilities(text) for text in texts}
    for seed, batch_tokens in enumerate((1, 60, 4096)):
        chance = random.Random(seed)
        scoring = TextClassification(
            str(folder), labels=["toxic"], device="cpu", precision="float32", batch_tokens=batch_tokens
        )
        order = chance.sample(texts, k=len(texts) - seed)
        for text, score in zip(order, scoring.score([Text(None, text) for text in order]), strict=True):
            found = [score.details[label] for label in ("neutral", "toxic", "threat")]
            assert found == pytest.approx(expected[text], abs=TOLERANCE)
            assert score.value == score.details["toxic"]
            assert score.details["tokens"] == len(text.split(" ")) + 2


@pytest.mark.parametrize("kind", tiny_classifiers.KINDS)
def test_encoders_run_packed_and_decoders_padded(tmp_path: Path, kind: str) -> None:
    folder = tiny_classifiers.classifier(tmp_path / kind, kind)
    model = classifier_model.ClassifierModel(
        str(folder), device=torch.device("cpu"), precision="float32", activation=None
    )
    assert model.packed == (kind in tiny_classifiers.ENCODERS)


def test_integers_stay_within_their_tolerance_whatever_the_batches(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m", spread=0.1)
    texts = sentences(60, 30)
    plain = Plain(folder)
    scoring = TextClassification(str(folder), labels=["toxic"], device="cpu", precision="int8")
    assert scoring.precision == "int8"
    together = scoring.score([Text(None, text) for text in texts])
    for text, score in zip(texts, together, strict=True):
        assert score.value == pytest.approx(plain.probabilities(text)[1], abs=INTEGER_TOLERANCE)
        (alone,) = scoring.score([Text(None, text)])
        # A row's scale is its own: only where float sums differ in their last bit can a level flip.
        assert alone.value == pytest.approx(score.value, abs=2e-3)


def test_auto_takes_integers_only_from_a_model_that_bears_them(tmp_path: Path) -> None:
    calm = TextClassification(
        str(tiny_classifiers.classifier(tmp_path / "calm", spread=0.05)), labels=["toxic"], device="cpu"
    )
    wild = TextClassification(
        str(tiny_classifiers.classifier(tmp_path / "wild", spread=1.5)), labels=["toxic"], device="cpu"
    )
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert calm.precision == ("int8" if fast else "float32")
    assert wild.precision == "float32"
    text = sentences(1, 20)[0]
    (score,) = wild.score([Text(None, text)])
    assert score.value == pytest.approx(Plain(tmp_path / "wild").probabilities(text)[1], abs=TOLERANCE), (
        "the layers that were tried are put back"
    )


def test_a_softmax_adds_its_labels_up(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m", problem=None)
    text = sentences(1, 20)[0]
    expected = Plain(folder).probabilities(text)
    scoring = TextClassification(str(folder), labels=["threat", "toxic"], device="cpu", precision="float32")
    (score,) = scoring.score([Text(None, text)])
    assert score.value == pytest.approx(expected[1] + expected[2], abs=TOLERANCE)
    assert sum(float(score.details[label]) for label in ("neutral", "toxic", "threat")) == pytest.approx(1.0)
    assert score.label == ("neutral", "toxic", "threat")[expected.index(max(expected))]


def test_the_activation_can_be_told(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m", labels=("quality",), problem="regression")
    text = Text(None, sentences(1, 20)[0])
    (number,) = TextClassification(str(folder), device="cpu").score([text])
    (probability,) = TextClassification(str(folder), device="cpu", activation="sigmoid").score([text])
    assert number.value is not None
    assert probability.value == pytest.approx(torch.sigmoid(torch.tensor(number.value)).item(), abs=1e-2)


def test_a_long_text_has_the_highest_score_among_its_windows(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m")
    text = " ".join(sentences(6, 30))
    words = text.split(" ")
    plain = Plain(folder)
    scoring = TextClassification(
        str(folder), labels=["toxic"], device="cpu", precision="float32", max_length=20, stride=7
    )
    (score,) = scoring.score([Text(None, text)])
    parts = [plain.probabilities(" ".join(part)) for part in split_text(words, 18, 7)]  # type: ignore[arg-type]
    assert len(parts) == score.details["windows"]
    assert score.value == pytest.approx(max(part[1] for part in parts), abs=TOLERANCE)
    assert score.details["threat"] == pytest.approx(max(part[2] for part in parts), abs=TOLERANCE)


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_windows_leave_nothing_out_and_keep_short_phrases_whole(
    count: int, room: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, room))
    numbers = list(range(count))
    windows = list(split_text(numbers, room, stride))
    assert sorted({number for window in windows for number in window}) == numbers
    phrase = room - stride + 1
    whole = {tuple(window[start : start + phrase]) for window in windows for start in range(len(window))}
    if count >= phrase:
        assert all(tuple(numbers[start : start + phrase]) in whole for start in range(count - phrase + 1))
    assert len(windows) <= max(1, -(-max(0, count - room) // stride) + 1)


def test_what_cannot_be_scored_has_a_reason_and_the_rest_has_scores(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m")
    tiny_classifiers.break_word(folder, "poison")
    loaded = AutoTokenizer.from_pretrained(folder)
    # A word that the tokenizer has and the embedding has not: reading it raises an IndexError.
    loaded.add_tokens(["elephant"])
    loaded.save_pretrained(folder)
    scoring = TextClassification(str(folder), labels=["toxic"], device="cpu", precision="float32")
    answers = ["the cat sat", None, " \n", "eat the poison", "the elephant ran", "far away", "\ud83d cat"]
    scores = scoring.score([Text("the mat", answer) for answer in answers])
    assert [score.unscored_reason for score in scores] == [
        *(None, EMPTY, EMPTY, NOT_FINITE, MODEL_ERROR, None, None)
    ]
    assert scores[0].value == pytest.approx(Plain(folder).probabilities("the cat sat")[1], abs=TOLERANCE)
    assert "IndexError" in str(scores[4].details["error"])


def test_nan_stays_nan_in_integers(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m")
    tiny_classifiers.break_word(folder, "poison")
    scoring = TextClassification(str(folder), labels=["toxic"], device="cpu", precision="int8")
    scores = scoring.score([Text(None, "the cat sat"), Text(None, "eat the poison")])
    assert [score.unscored_reason for score in scores] == [None, NOT_FINITE]


def test_out_of_memory_halves_the_batches_and_gives_up_only_what_fits_nowhere(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m")
    scoring = TextClassification(
        str(folder), labels=["toxic"], device="cpu", precision="float32", batch_tokens=4096
    )
    texts = [*sentences(30, 15), " ".join(["cat"] * 30)]
    before = scoring.score([Text(None, text) for text in texts])
    sizes: list[int] = []

    def small_memory(_module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        sizes.append(options["input_ids"].numel())
        if sizes[-1] > 25:
            raise torch.OutOfMemoryError("CUDA out of memory")

    scoring._model._model.register_forward_pre_hook(small_memory, with_kwargs=True)
    after = scoring.score([Text(None, text) for text in texts])
    assert [score.unscored_reason for score in after] == [None] * 30 + [OUT_OF_MEMORY]
    for ours, theirs in zip(after[:30], before[:30], strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=TOLERANCE)
    sizes.clear()
    scoring.score([Text(None, text) for text in texts[:30]])
    assert max(sizes) <= 25, "the lesson stays"


def test_toxicity_takes_a_classifier(tmp_path: Path) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m", labels=("Neutral", "Toxic", "threat"))
    text = Text(None, sentences(1, 20)[0])
    built = toxicity.build(models_dir=tmp_path, model=str(folder), device="cpu", precision="float32")
    assert isinstance(built, Evaluator)
    assert (built.name, built.model, built.target, built.device) == ("toxicity", "m", "response", "cpu")
    (score,) = built.score([text])
    assert score.value == score.details["Toxic"], "the label is known by its name"
    assert score.value is not None
    for threshold, label in ((score.value, "toxic"), (score.value + 1e-6, "ok")):
        again = toxicity.build(
            models_dir=tmp_path, model=str(folder), device="cpu", precision="float32", threshold=threshold
        )
        assert again.version != built.version
        assert again.score([text])[0].label == label


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["rude"]}, "rude.*neutral, toxic, threat"),
        ({"labels": []}, "empty"),
        ({"labels": None}, "neutral, toxic, threat"),
        ({"activation": "tanh"}, "tanh"),
        ({"precision": "int4"}, "int4"),
        ({"target": "both"}, "both"),
        ({"threshold": 1.0}, "threshold"),
        ({"max_length": 4}, "max_length"),
        ({"stride": 39}, "stride"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    folder = tiny_classifiers.classifier(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        TextClassification(str(folder), **{"labels": ["toxic"], "device": "cpu", **options})


@pytest.mark.parametrize(
    ("model", "option"),
    [("toxicity", {"stride": 10}), ("toxicity", {"precision": "int8"}), ("x/y", {"batch_size": 8})],
)
def test_toxicity_refuses_an_option_of_the_other_kind(
    tmp_path: Path, model: str, option: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        toxicity.build(models_dir=tmp_path, model=model, **option)


def test_a_model_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        TextClassification(str(tmp_path / "nowhere"), labels=["toxic"])
