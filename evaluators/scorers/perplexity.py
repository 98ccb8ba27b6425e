"""Perplexity: how surprised a language model is by an answer, given what was asked.

``exp`` of the mean negative log-likelihood per token, in float32 on a CPU and bfloat16 on a GPU unless told
otherwise. Integers (``int8``) are offered on a CPU and never chosen: they move a single text's perplexity by a
few percent.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evaluators.engine.batching import Batcher
from evaluators.engine.devices import choose_device
from evaluators.engine.language_model import LanguageModel, Window
from evaluators.engine.model_files import offline_folder
from evaluators.engine.precision import check_precision
from evaluators.engine.tokenizing import ahead, own_marks, token_numbers
from evaluators.evaluator import EMPTY, NOT_FINITE, TOO_SHORT, Score, Target, Text, target_text, unscored

OFFLINE_MODEL: Final = "SmolLM2-135M-Instruct"
"""The folder of :mod:`evaluators.preparation.smollm2`."""
_CODE: Final = "perplexity-2"
_CHUNK: Final = 2048
"""Texts whose tokens are made at once."""


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
        precision: str = "auto",
        max_length: int = 2048,
        max_tokens: int = 8192,
        batch_tokens: int | None = None,
        min_tokens: int = 2,
    ) -> None:
        """``source``: a folder, a Hugging Face id or an MLflow URI. ``precision``: see
        :mod:`evaluators.engine.precision`. ``batch_tokens``: the most tokens of one batch, padding included.

        Raises ``OSError`` when there is no such model, ``ValueError`` for an option that makes no sense.
        """
        if target not in ("request", "response"):
            raise ValueError(f"target is request or response, not {target!r}.")
        if max_length < 4:
            raise ValueError(f"max_length is at least 4, not {max_length}.")
        if not 1 <= min_tokens <= max_tokens:
            raise ValueError(f"min_tokens lies between 1 and max_tokens ({max_tokens}), not {min_tokens}.")
        chosen = choose_device(device)
        check_precision(precision, chosen)
        code = f"{_CODE} {max_length} {max_tokens} {min_tokens}"
        self._model = LanguageModel(source, device=chosen, precision=precision, code=code)
        self._window = min(max_length, self._model.max_length)
        self._min_tokens = min_tokens
        self._max_tokens = max_tokens
        # What the tokenizer puts in front of a text by itself, such as a beginning-of-sequence token.
        self._leading = own_marks(self._model.tokenizer).before
        budget = batch_tokens if batch_tokens is not None else (2048 if chosen.type == "cpu" else 65_536)
        self._batcher: Batcher[float | _Failure] = Batcher(
            budget=budget, max_items=4096, padded=not self._model.packed
        )
        self.target: Target = target
        self.model = self._model.name
        self.version = self._model.version
        self.precision = self._model.precision
        self.device = str(chosen)

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """The perplexity of each text; details: ``tokens`` that counted, their ``mean_nll``, and
        ``context_tokens``."""
        chunks = [batch[start : start + _CHUNK] for start in range(0, len(batch), _CHUNK)]
        depth = 0 if self.device == "cpu" else 2
        return [
            score
            for prepared in ahead(self._prepare, chunks, depth=depth)
            for score in self._scores(prepared)
        ]

    def _scores(self, prepared: list[_Read | Score]) -> Iterator[Score]:
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
        for number, item in enumerate(prepared):
            yield item if isinstance(item, Score) else _to_score(item, losses[number])

    def _prepare(self, batch: Sequence[Text]) -> list[_Read | Score]:
        scored = [target_text(text, self.target) for text in batch]
        kept = [number for number, text in enumerate(scored) if text is not None]
        tokenizer = self._model.tokenizer
        # A control token spelled out in a text is text here: it must not end a turn.
        counted = token_numbers(tokenizer, [scored[number] or "" for number in kept])
        contexts = self._contexts([(batch[number], scored[number] or "") for number in kept])
        prepared: list[_Read | Score] = [unscored(EMPTY) for _ in batch]
        for number, own, context in zip(kept, counted, contexts, strict=True):
            before, read = (context, own) if context else (own[:1], own[1:])
            if len(read) < self._min_tokens:
                prepared[number] = unscored(TOO_SHORT, tokens=float(len(read)))
            else:
                left_out = max(0, len(read) - self._max_tokens)
                prepared[number] = _Read(before, read[: self._max_tokens], left_out)
        return prepared

    def _contexts(self, texts: Sequence[tuple[Text, str]]) -> list[list[int]]:
        """What each text is read after: its prompt as the model's template or a line break gives it, else what
        the tokenizer puts in front."""
        prompts = [target_text(text, "request") if self.target == "response" else None for text, _ in texts]
        tokenizer: Any = self._model.tokenizer
        template = bool(tokenizer.chat_template)
        written: list[str] = []
        for prompt, (_, scored) in zip(prompts, texts, strict=True):
            if prompt is not None and template:
                turn = [{"role": "user", "content": prompt}]
                written.append(
                    tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
                )
            elif prompt is not None:
                written.append(prompt if scored[0].isspace() else f"{prompt}\n")
        numbers = iter(token_numbers(tokenizer, written, control=template))
        leading = [] if template else self._leading
        return [self._leading if prompt is None else leading + next(numbers) for prompt in prompts]


def build(
    *,
    models_dir: Path,
    target: Target = "response",
    model: str = OFFLINE_MODEL,
    device: str | None = None,
    precision: str = "auto",
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
        precision=precision,
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
