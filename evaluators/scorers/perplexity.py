"""Perplexity: how surprised a language model is by an answer, given what was asked.

``exp`` of the mean negative log-likelihood per token, in float32 on a CPU and bfloat16 on a GPU unless told
otherwise.

Target ``response``: only the answer's tokens count; the prompt is what they are conditioned on. A tokenizer
with a chat template renders the prompt as one user turn and opens the assistant's turn; without one the
answer follows the prompt, after a line break unless it begins with white space of its own.

Target ``request``, and an answer whose prompt is not known: the text alone. Where the tokenizer puts no
token of its own in front, the first token has nothing to be conditioned on and does not count.

A text longer than ``max_length`` tokens is read by windows that overlap by half: each token that counts sees
at least ``max_length / 2`` tokens before it. Of a long prompt the end is kept. Of a text longer than
``max_tokens`` the beginning counts, and the detail ``left_out_tokens`` says how much was not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from evaluators.engine.batching import Batcher
from evaluators.engine.devices import choose_device
from evaluators.engine.language_model import LanguageModel, Window
from evaluators.engine.model_files import offline_folder
from evaluators.evaluator import EMPTY, NOT_FINITE, TOO_SHORT, Score, Target, Text, target_text, unscored

OFFLINE_MODEL: Final = "SmolLM2-135M-Instruct"
"""The folder of :mod:`evaluators.preparation.smollm2`."""
_CODE: Final = "perplexity-1"
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class _Read:
    context: list[int]
    counted: list[int]
    left_out: int


class Perplexity:
    """An :class:`~evaluators.evaluator.Evaluator` over any causal language model of the Hugging Face kind."""

    name = "perplexity"

    def __init__(
        self,
        source: str,
        *,
        target: Target = "response",
        device: str | None = None,
        dtype: str | None = None,
        max_length: int = 2048,
        max_tokens: int = 8192,
        batch_tokens: int | None = None,
        min_tokens: int = 2,
    ) -> None:
        """``source``: a folder or a Hugging Face id. ``batch_tokens``: the most tokens of one batch,
        padding included.

        Raises ``OSError`` when there is no such model, ``ValueError`` for an option that makes no sense.
        """
        if target not in ("request", "response"):
            raise ValueError(f"target is request or response, not {target!r}.")
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(f"dtype is one of {', '.join(_DTYPES)}, not {dtype!r}.")
        if max_length < 4:
            raise ValueError(f"max_length is at least 4, not {max_length}.")
        if not 1 <= min_tokens <= max_tokens:
            raise ValueError(f"min_tokens lies between 1 and max_tokens ({max_tokens}), not {min_tokens}.")
        chosen = choose_device(device)
        precision = _DTYPES[dtype or ("float32" if chosen.type == "cpu" else "bfloat16")]
        code = f"{_CODE} {precision} {max_length} {max_tokens} {min_tokens}"
        self._model = LanguageModel(source, device=chosen, dtype=precision, code=code)
        self._window = min(max_length, self._model.max_length)
        self._min_tokens = min_tokens
        self._max_tokens = max_tokens
        self._leading = self._leading_tokens()
        budget = batch_tokens if batch_tokens is not None else (2048 if chosen.type == "cpu" else 32_768)
        self._batcher: Batcher[float | _Failure] = Batcher(budget=budget, max_items=512)
        self.target: Target = target
        self.model = self._model.name
        self.version = self._model.version
        self.device = str(chosen)

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """The perplexity of each text; details: ``tokens`` that counted, their ``mean_nll``, and
        ``context_tokens``."""
        prepared = [self._prepare(text) for text in batch]
        windows: list[Window] = []
        owners: list[int] = []
        for number, item in enumerate(prepared):
            if isinstance(item, _Read):
                pieces = split_windows(item.context + item.counted, len(item.context), self._window)
                windows.extend(pieces)
                owners.extend([number] * len(pieces))
        sums = self._batcher.run(
            [len(window.tokens) for window in windows],
            lambda indices: self._model.negative_log_likelihoods([windows[index] for index in indices]),
            lambda _index, reason, error: _Failure(reason, error),
        )
        losses: dict[int, list[float | _Failure]] = {}
        for owner, loss in zip(owners, sums, strict=True):
            losses.setdefault(owner, []).append(loss)
        return [
            item if isinstance(item, Score) else _to_score(item, losses[number])
            for number, item in enumerate(prepared)
        ]

    def _prepare(self, text: Text) -> _Read | Score:
        scored = target_text(text, self.target)
        if scored is None:
            return unscored(EMPTY)
        # A control token spelled out in a text is text here: it must not end a turn.
        counted = self._tokens(scored, split_special_tokens=True)
        prompt = target_text(text, "request") if self.target == "response" else None
        if prompt is None:
            context = self._leading
        elif self._model.tokenizer.chat_template:
            context = self._tokens(
                self._model.tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
                )
            )
        else:
            between = "" if scored[0].isspace() else "\n"
            context = self._leading + self._tokens(prompt + between, split_special_tokens=True)
        if not context:
            context, counted = counted[:1], counted[1:]
        if len(counted) < self._min_tokens:
            return unscored(TOO_SHORT, tokens=float(len(counted)))
        return _Read(context, counted[: self._max_tokens], max(0, len(counted) - self._max_tokens))

    def _tokens(self, text: str, **options: bool) -> list[int]:
        numbers: list[int] = self._model.tokenizer(text, add_special_tokens=False, verbose=False, **options)[
            "input_ids"
        ]
        return numbers

    def _leading_tokens(self) -> list[int]:
        """What the tokenizer puts in front of a text by itself, such as a beginning-of-sequence token."""
        marked: list[int] = self._model.tokenizer("a")["input_ids"]
        plain = self._tokens("a")
        return marked[: marked.index(plain[0])] if plain and plain[0] in marked else []


def build(
    *,
    models_dir: Path,
    target: Target = "response",
    model: str = OFFLINE_MODEL,
    device: str | None = None,
    dtype: str | None = None,
    max_length: int = 2048,
    max_tokens: int = 8192,
    batch_tokens: int | None = None,
    min_tokens: int = 2,
) -> Perplexity:
    """What the settings call ``perplexity``."""
    return Perplexity(
        str(offline_folder(models_dir, model)) if model == OFFLINE_MODEL else model,
        target=target,
        device=device,
        dtype=dtype,
        max_length=max_length,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        min_tokens=min_tokens,
    )


def split_windows(tokens: list[int], counted: int, size: int) -> list[Window]:
    """Windows of at most ``size`` tokens in which each token from position ``counted`` (at least 1) on
    counts once.

    A token has at least ``size // 2`` tokens before it in its window, or all there are.
    """
    stride = size - size // 2
    kept = max(size // 2, size - (len(tokens) - counted))
    if counted > kept:
        tokens, counted = tokens[counted - kept :], kept
    windows = [Window(tokens[:size], counted)]
    done = size
    while done < len(tokens):
        end = min(done + stride, len(tokens))
        windows.append(Window(tokens[end - size : end], done - (end - size)))
        done = end
    return windows


def _to_score(read: _Read, losses: list[float | _Failure]) -> Score:
    total = 0.0
    for loss in losses:
        if isinstance(loss, _Failure):
            return unscored(loss.reason, error=loss.error)
        total += loss
    tokens = float(len(read.counted))
    mean = total / tokens
    # From 700 on exp() overflows; a mean that high is no likelihood of any model either.
    if not math.isfinite(mean) or mean > 700:
        return unscored(NOT_FINITE, tokens=tokens)
    details = {"tokens": tokens, "mean_nll": mean, "context_tokens": float(len(read.context))}
    if read.left_out:
        details["left_out_tokens"] = float(read.left_out)
    return Score(value=math.exp(mean), details=details)
