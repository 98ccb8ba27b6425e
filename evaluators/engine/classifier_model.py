"""A sequence classifier of the Hugging Face kind: token numbers to logits, packed where the model allows it.

Packed, the texts of a batch lie behind one another in one row (:mod:`evaluators.engine.packing`), and what the
classification head reads, each text's first token, is picked from the row by hooks: on the encoder's result,
on its pooler, and, in models built like BERT, on the last layer behind its attention, which is then computed
for those tokens only. A model that does not give the same packed as alone, such as a decoder, which reads the
last token, runs padded.

Precision ``auto`` on a CPU: the encoder's linear layers are tried in 8-bit integers when the model is
loaded. They stay if no logit of :data:`TRIAL_TEXTS` moves so far that a probability could move by more than
:data:`INTEGER_TOLERANCE`, whatever its value; else the model computes in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evaluators.engine.devices import use_all_cores
from evaluators.engine.linear_layers import IntegerLinear, exchange_linear_layers, order_linear_layers
from evaluators.engine.model_files import combined_version, model_version, without_progress_bars
from evaluators.engine.model_source import local_model
from evaluators.engine.packing import Packed, agrees, pack, texts_apart, to_device, use_packed_attention
from evaluators.engine.precision import (
    PACKED_TOLERANCE,
    check_precision,
    dtype_of,
    integers_win,
    usual_precision,
)
from evaluators.engine.tokenizing import own_marks, token_numbers

Activation: TypeAlias = Literal["sigmoid", "softmax", "none"]

INTEGER_TOLERANCE: Final = 0.02
"""What a probability may move by in 8-bit integers."""

TRIAL_TEXTS: Final = (
    "Thank you, that was exactly what I needed.",
    "Shut up, you stupid idiot, nobody wants to hear your garbage.",
    "I will find out where you live and you will regret this.",
    "Could you explain how interest on a mortgage is computed, with an example over thirty years?",
    "To reset the device, hold the button for ten seconds until the light blinks twice, then let go.",
    "That is the dumbest plan I have ever seen, but fine, let us do it.",
    "Ich habe die Rechnung noch nicht bekommen, können Sie sie bitte noch einmal schicken?",
    "def area(width, height):\n    return width * height",
    "ok",
    "People like them should not be allowed to vote, if you ask me.",
    "The committee met on Tuesday to discuss the budget, and after a long debate the members agreed to postpone "
    "the vote until more was known about the costs. Several of them were concerned that the first estimates had "
    "been too low, and asked for figures by the end of the month.",
    "WHY IS THIS STILL BROKEN??? FIX IT NOW!!!",
)
"""Read when a model is loaded."""

_FALLBACK_LENGTH: Final = 512


class _FirstTokens:
    """Hooks that pick each text's first token from a packed row; without one they do nothing."""

    def __init__(self, model: Any) -> None:
        self.packed: Packed | None = None
        base = model.base_model
        self._hooks = [base.register_forward_hook(self._of_result)]
        pooler = getattr(base, "pooler", None)
        if isinstance(pooler, torch.nn.Module):
            self._hooks.append(pooler.register_forward_pre_hook(self._of_pooler))
        layers = getattr(getattr(base, "encoder", None), "layer", None)
        behind = getattr(getattr(layers[-1], "attention", None), "output", None) if layers else None
        if isinstance(behind, torch.nn.Module):
            self._hooks.append(behind.register_forward_pre_hook(self._of_last_layer))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _of_result(self, _module: Any, _inputs: Any, result: Any) -> Any:
        if self.packed is not None:
            result.last_hidden_state = self._picked(result.last_hidden_state).transpose(0, 1)
        return result

    def _of_pooler(self, _module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.packed is None:
            return inputs
        return (self._picked(inputs[0]).transpose(0, 1), *inputs[1:])

    def _of_last_layer(self, _module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs if self.packed is None else tuple(self._picked(rows) for rows in inputs)

    def _picked(self, row: Tensor) -> Tensor:
        """1 × texts × width of 1 × tokens × width; what has been picked from already passes."""
        if self.packed is None or row.shape[1] == len(self.packed.bounds) - 1:
            return row
        return row[:, self.packed.firsts]


class ClassifierModel:
    """Loaded weights and tokenizer. ``labels`` in the order of the logits; ``activation`` makes probabilities
    of them; ``max_length`` is the most tokens of one pass, marks included; ``precision`` is what was chosen."""

    def __init__(self, source: str, *, device: torch.device, precision: str, activation: str | None) -> None:
        """``source``: a folder, a Hugging Face id or an MLflow URI. ``OSError`` when there is no such model,
        ``ValueError`` when the options do not fit it."""
        check_precision(precision, device)
        chosen = usual_precision(precision, device)
        if device.type == "cpu":
            use_all_cores()
        with local_model(source) as files, without_progress_bars():
            self.tokenizer: Any = AutoTokenizer.from_pretrained(files.tokenizer)
            model = AutoModelForSequenceClassification.from_pretrained(files.model, dtype=dtype_of(chosen))
            self._files_version = model_version(files.root, model.config, "")
        self.device = device
        self.name = files.name
        self._model: Any = model.to(device).eval()
        self._padding = _padding(self._model.config, self.tokenizer)
        self.labels = _labels(self._model.config)
        self.activation = _activation(self._model.config, activation)
        self.marks = own_marks(self.tokenizer)
        self._first_position = _first_position(self._model.base_model)
        self.max_length = _max_length(self._model.config, self.tokenizer, self._first_position)
        if self.max_length <= len(self.marks):
            raise ValueError(
                f"{self.name} reads at most {self.max_length} tokens, which leaves none for a text."
            )
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        self._hooks: _FirstTokens | None = None
        trial = [
            [*self.marks.before, *numbers, *self.marks.after]
            for text in token_numbers(self.tokenizer, TRIAL_TEXTS)
            if (numbers := text[: self.max_length - len(self.marks)])
        ]
        self.precision = self._choose_numbers(precision, chosen, trial)
        self._try_packed([*trial, *self._arbitrary_rows()])

    @property
    def packed(self) -> bool:
        """Whether texts run without padding."""
        return self._hooks is not None

    def version(self, code: str) -> str:
        """Twelve hexadecimal digits that follow the weights, the numbers computed in, and ``code``."""
        return combined_version(self._files_version, self.precision, code)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """float32, rows × labels, on the device. A row is a text's token numbers with their marks."""
        return self._packed_logits(rows) if self.packed else self._padded_logits(rows)

    def _packed_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        if self._hooks is None:
            raise RuntimeError("this model runs padded")
        packed = pack(rows, self.device, first_position=self._first_position)
        self._hooks.packed = packed
        try:
            with texts_apart(packed):
                answer: Tensor = self._model(
                    input_ids=packed.tokens, position_ids=packed.positions, attention_mask=self._no_mask
                ).logits
        finally:
            self._hooks.packed = None
        return answer.float()

    def _padded_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, rows))
        tokens = np.full((len(rows), longest), self._padding, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
            mask[number, : len(row)] = 1
        answer: Tensor = self._model(
            input_ids=to_device(tokens, self.device),
            # Without a mask attention takes its fast path.
            attention_mask=None if mask.all() else to_device(mask, self.device),
        ).logits
        return answer.float()

    @torch.inference_mode()
    def _one_by_one(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.cat([self._padded_logits([row]) for row in rows])

    @torch.inference_mode()
    def _choose_numbers(self, asked: str, usual: str, trial: list[list[int]]) -> str:
        """Exchange linear layers as ``asked``; the numbers that the model computes in from now on."""
        if self.device.type != "cpu" or usual not in ("float32", "int8"):
            return usual
        if asked == "int8" or (asked == "auto" and integers_win(self.device)):
            before = self._one_by_one(trial)
            try:
                done = exchange_linear_layers(self._model.base_model, IntegerLinear)
                after = self._one_by_one(trial)
            except (AttributeError, NotImplementedError, RuntimeError) as error:
                if asked == "int8":
                    raise ValueError(f"int8 does not work with {self.name} on this CPU: {error}") from error
            else:
                if asked == "int8" or float((after - before).abs().max()) <= self._allowed_move():
                    return "int8"
            done.undo()
        order_linear_layers(self._model, lambda: self._one_by_one(trial), PACKED_TOLERANCE["float32"])
        return "float32"

    def _allowed_move(self) -> float:
        """Of logits, so that no probability moves by more than the tolerance: a sigmoid moves by at most a
        quarter of what its logit does, one of a softmax by half of what the farthest does."""
        return INTEGER_TOLERANCE * {"sigmoid": 4.0, "softmax": 2.0, "none": 0.0}[self.activation]

    def _arbitrary_rows(self) -> list[list[int]]:
        """Rows of different lengths in which tokens differ, also where a tokenizer knows no word of the trial
        texts."""
        special = set(self.tokenizer.all_special_ids)
        vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        usual = [number for number in range(min(vocabulary, 50_000)) if number not in special]
        room = self.max_length - len(self.marks)
        return [
            [
                *before,
                *(usual[place * 7919 % len(usual)] for place in range(7, 7 + min(length, room))),
                *after,
            ]
            for length in (1, 12, 5)
            for before, after in [(self.marks.before, self.marks.after)]
        ]

    @torch.inference_mode()
    def _try_packed(self, trial: list[list[int]]) -> None:
        alone = self._one_by_one(trial)
        half = self.precision in ("bfloat16", "float16")
        if self.device.type == "cuda" and not half:  # the kernel for packed rows has no float32
            return
        try:
            use_packed_attention(self._model, on=True)
        except (ValueError, ImportError, NotImplementedError):
            use_packed_attention(self._model, on=False)
            return
        self._hooks = _FirstTokens(self._model)
        tolerance = PACKED_TOLERANCE[self.precision]
        if not agrees(lambda: self._packed_logits(trial), lambda: alone, tolerance):
            self._hooks.remove()
            self._hooks = None
            use_packed_attention(self._model, on=False)


def _labels(config: Any) -> list[str]:
    return [str(config.id2label[number]) for number in range(config.num_labels)]


def _activation(config: Any, asked: str | None) -> Activation:
    if asked is not None and asked not in ("sigmoid", "softmax", "none"):
        raise ValueError(f"activation is sigmoid, softmax or none, not {asked!r}.")
    if asked == "softmax" and config.num_labels == 1:
        raise ValueError("activation softmax makes 1 of the only label of this model; write sigmoid or none.")
    if asked in ("sigmoid", "softmax", "none"):
        return asked  # type: ignore[return-value]
    if config.problem_type == "regression":
        return "none"
    return (
        "sigmoid"
        if config.problem_type == "multi_label_classification" or config.num_labels == 1
        else "softmax"
    )


def _padding(config: Any, tokenizer: Any) -> int:
    """The number that texts are filled up with. A decoder finds its last token by it, and does without
    batches where it knows none, so it is told the tokenizer's."""
    known = config.pad_token_id
    if known is None:
        known = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        config.pad_token_id = known
    return int(known or 0)


def _first_position(base: Any) -> int:
    """RoBERTa counts positions from behind its padding's number on, BERT from 0."""
    embeddings: Any = getattr(base, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        return int(embeddings.padding_idx) + 1
    return 0


def _max_length(config: Any, tokenizer: Any, first_position: int) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    # A tokenizer that was told nothing says 10^30.
    told = tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None
    limits = [limit for limit in (positions and positions - first_position, told) if limit and limit > 0]
    return min(limits, default=_FALLBACK_LENGTH)
