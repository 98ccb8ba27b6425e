"""Text classification: the probability of a label by any sequence classifier of the Hugging Face kind.

It is what the settings call ``classifier``, and ``toxicity`` when that is given a ``model``. The score is the
probability of ``labels``: with a sigmoid (labels that can hold together) the highest of theirs, with a softmax
(one label a text) their sum. Which of the two follows the model's ``problem_type`` as in transformers, unless
``activation`` says otherwise; ``none`` gives the model's number itself, for regressions.

A text longer than the model reads at once is read by windows of ``max_length`` tokens, each beginning
``stride`` tokens after the one before and the last ending with the text; the score is the highest among the
windows. A phrase of up to ``max_length − stride`` tokens is whole in one of them, so a smaller stride cuts less
and costs more: ``max_length / stride`` times the tokens for a long text, nothing for a short one.

Tolerances: in float32 a score equals the model's own float32 answer for the text alone within 1e-4, whatever
it is batched with; in int8 and bfloat16 within 0.02 for models that keep that on the trial texts of
:mod:`evaluators.engine.classifier_model`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from evaluators.engine.batching import Batcher
from evaluators.engine.classifier_model import ClassifierModel
from evaluators.engine.devices import choose_device
from evaluators.engine.precision import check_precision
from evaluators.engine.tokenizing import ahead, token_numbers
from evaluators.evaluator import EMPTY, NOT_FINITE, Score, Target, Text, target_text, unscored

_CODE: Final = "classification-1"
_CHUNK: Final = 4096
"""Texts whose tokens are made at once."""


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    error: str


class TextClassification:
    """An :class:`~evaluators.evaluator.Evaluator` over one classifier.

    ``name``: what the scores are called. ``positive``: the label of a score from ``threshold`` on, ``negative``
    below it; ``None``: the model's most probable label.
    """

    def __init__(
        self,
        source: str,
        *,
        name: str = "classifier",
        labels: Sequence[str] | None = None,
        usual_labels: Sequence[str] = (),
        target: Target = "response",
        device: str | None = None,
        precision: str = "auto",
        activation: str | None = None,
        threshold: float = 0.5,
        positive: str | None = None,
        negative: str | None = None,
        max_length: int = 512,
        stride: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        """``labels``: of the model; ``None``: those of ``usual_labels`` that it has, in any case of letters,
        else its only label, or the second of two. ``stride``: three quarters of a window by default.

        Raises ``OSError`` when there is no such model, ``ValueError`` for an option that makes no sense.
        """
        if target not in ("request", "response"):
            raise ValueError(f"target is request or response, not {target!r}.")
        chosen = choose_device(device)
        check_precision(precision, chosen)
        if max_length < 8:
            raise ValueError(f"max_length is at least 8, not {max_length}.")
        self._model = ClassifierModel(source, device=chosen, precision=precision, activation=activation)
        if self._model.activation != "none" and not 0.0 < threshold < 1.0:
            raise ValueError(f"threshold lies between 0 and 1, not {threshold}.")
        self._wanted = _wanted(self._model.labels, labels, usual_labels)
        self._threshold = threshold
        self._positive, self._negative = positive, negative
        self._room = min(max_length, self._model.max_length) - len(self._model.marks)
        if self._room < 1:
            raise ValueError(f"max_length leaves no room for a text beside {len(self._model.marks)} marks.")
        self._stride = stride if stride is not None else max(1, self._room * 3 // 4)
        if not 1 <= self._stride <= self._room:
            raise ValueError(f"stride lies between 1 and {self._room}, the tokens of a window, not {stride}.")
        budget = batch_tokens if batch_tokens is not None else (1024 if chosen.type == "cpu" else 65_536)
        self._batcher: Batcher[list[float] | _Failure] = Batcher(
            budget=budget, max_items=4096, padded=not self._model.packed
        )
        self.name = name
        self.target: Target = target
        self.model = self._model.name
        self.precision = self._model.precision
        self.device = str(chosen)
        self.version = self._model.version(
            f"{_CODE} {name} {self._wanted} {self._model.activation} {threshold} {self._room} {self._stride} "
            f"{positive} {negative}"
        )
        self._scores([[0]])  # warm: the first texts need not wait for what the libraries set up

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """The probability of the labels; details: every label's, the ``tokens`` that were read, marks and overlaps
        included, and how many ``windows``, if more than one."""
        chunks = [batch[start : start + _CHUNK] for start in range(0, len(batch), _CHUNK)]
        depth = 0 if self.device == "cpu" else 2
        return [
            score for numbers in ahead(self._numbers, chunks, depth=depth) for score in self._scores(numbers)
        ]

    def _numbers(self, batch: Sequence[Text]) -> list[list[int] | None]:
        texts = [target_text(text, self.target) for text in batch]
        numbers = iter(token_numbers(self._model.tokenizer, [text for text in texts if text is not None]))
        return [None if text is None else next(numbers) for text in texts]

    def _scores(self, numbers: Sequence[list[int] | None]) -> list[Score]:
        rows: list[list[int]] = []
        owners: list[int] = []
        marks = self._model.marks
        for number, text in enumerate(numbers):
            for window in split_text(text or [], self._room, self._stride):
                rows.append([*marks.before, *window, *marks.after])
                owners.append(number)
        lengths = [len(row) for row in rows]
        answers = self._batcher.run(
            lengths,
            lambda indices: self._probabilities([rows[index] for index in indices]),
            lambda _index, reason, error: _Failure(reason, error),
        )
        by_text: list[list[list[float] | _Failure]] = [[] for _ in numbers]
        read = [0] * len(numbers)
        for owner, answer, length in zip(owners, answers, lengths, strict=True):
            by_text[owner].append(answer)
            read[owner] += length
        return list(map(self._to_score, numbers, by_text, read))

    @torch.inference_mode()
    def _probabilities(self, rows: list[list[int]]) -> Tensor:
        logits = self._model.logits(rows)
        if self._model.activation == "sigmoid":
            return torch.sigmoid(logits)
        return torch.softmax(logits, dim=-1) if self._model.activation == "softmax" else logits

    def _to_score(
        self, numbers: list[int] | None, answers: list[list[float] | _Failure], tokens: int
    ) -> Score:
        if not numbers:
            return unscored(EMPTY)
        windows: list[list[float]] = []
        for answer in answers:
            if isinstance(answer, _Failure):
                return unscored(answer.reason, error=answer.error)
            if not all(map(math.isfinite, answer)):
                return unscored(NOT_FINITE)
            windows.append(answer)
        if self._model.activation == "softmax":
            # The probabilities of one window, for those of different ones do not add up to 1.
            highest = max(windows, key=self._value)
        else:
            highest = [max(label) for label in zip(*windows, strict=True)]
        value = self._value(highest)
        labels = self._model.labels
        details: dict[str, float | str] = dict(zip(labels, highest, strict=True))
        details["tokens"] = float(tokens)
        if len(windows) > 1:
            details["windows"] = float(len(windows))
        label: str | None
        if self._positive is None:
            label = labels[highest.index(max(highest))]
        else:
            label = self._positive if value >= self._threshold else self._negative
        return Score(value=value, label=label, details=details)

    def _value(self, probabilities: Sequence[float]) -> float:
        wanted = [probabilities[index] for index in self._wanted]
        return min(1.0, math.fsum(wanted)) if self._model.activation == "softmax" else max(wanted)


def build(
    *,
    model: str,
    labels: list[str] | None = None,
    target: Target = "response",
    device: str | None = None,
    precision: str = "auto",
    activation: str | None = None,
    max_length: int = 512,
    stride: int | None = None,
    batch_tokens: int | None = None,
) -> TextClassification:
    """What the settings call ``classifier``."""
    return TextClassification(
        model,
        labels=labels,
        target=target,
        device=device,
        precision=precision,
        activation=activation,
        max_length=max_length,
        stride=stride,
        batch_tokens=batch_tokens,
    )


def split_text(numbers: list[int], room: int, stride: int) -> Iterator[list[int]]:
    """Windows of at most ``room`` token numbers, each ``stride`` behind the one before; the last is as long as the
    others and ends with the text. None of an empty text."""
    if not numbers:
        return
    start = 0
    while start + room < len(numbers):
        yield numbers[start : start + room]
        start += stride
    yield numbers[max(0, len(numbers) - room) :]


def _wanted(known: list[str], labels: Sequence[str] | None, usual: Sequence[str]) -> list[int]:
    """Positions of the labels whose probability is the score."""
    if labels is None:
        found = [index for index, label in enumerate(known) if label.lower() in usual]
        if found:
            return found
        if len(known) > 2:
            raise ValueError(f"write which labels the score is the probability of: {', '.join(known)}.")
        return [len(known) - 1]
    unknown = [label for label in labels if label not in known]
    if unknown or not labels:
        raise ValueError(
            f"labels: {unknown[0]!r} is no label of this model; it has: {', '.join(known)}."
            if unknown
            else f"labels is empty; the model has: {', '.join(known)}."
        )
    return [known.index(label) for label in dict.fromkeys(labels)]
