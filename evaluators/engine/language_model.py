"""A causal language model of the Hugging Face kind, and the negative log-likelihood of tokens under it.

The logits of a long text over a large vocabulary are the biggest thing in this computation by far, so they
are never all kept: the hidden states of the tokens that count, and no others, go through the output layer a
slice of rows at a time. That is valid for models whose logits are that layer and nothing else (no soft cap,
no scale); the model itself is asked once, when it is loaded, whether it is of that kind, and if not, its own
logits are used, window by window.

Windows run packed behind one another where the model allows it (:mod:`evaluators.engine.packing`), else with
padding on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.engine.devices import use_all_cores
from evaluators.engine.linear_layers import IntegerLinear, exchange_linear_layers, order_linear_layers
from evaluators.engine.model_files import combined_version, model_version, without_progress_bars
from evaluators.engine.model_source import local_model
from evaluators.engine.packing import agrees, pack, texts_apart, to_device, use_packed_attention
from evaluators.engine.precision import PACKED_TOLERANCE, check_precision, dtype_of, usual_precision

_LOGIT_BYTES: Final = {"cpu": 64 * 1024 * 1024, "cuda": 1024 * 1024 * 1024}
_FALLBACK_LENGTH: Final = 1024
_LEAST_BEGUN: Final = 8
_TRIAL_LENGTHS: Final = (16, 3, 9)


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids of one pass; ``counted`` is the position of the first token whose likelihood is wanted (at
    least 1)."""

    tokens: list[int]
    counted: int


class LanguageModel:
    """Loaded weights and tokenizer. ``max_length`` is the most tokens of one pass; ``precision`` is what was
    chosen."""

    def __init__(self, source: str, *, device: torch.device, precision: str, code: str) -> None:
        """``source`` is a folder, a Hugging Face id or an MLflow URI; ``OSError`` when there is no such
        model, ``ValueError`` when it cannot compute in ``precision`` here."""
        check_precision(precision, device)
        self.precision = usual_precision(precision, device)
        if device.type == "cpu":
            use_all_cores()
        with local_model(source) as files, without_progress_bars():
            self.tokenizer: Any = AutoTokenizer.from_pretrained(files.tokenizer)
            model = AutoModelForCausalLM.from_pretrained(files.model, dtype=dtype_of(self.precision))
            files_version = model_version(files.root, model.config, "")
        self._model: Any = model.to(device).eval()
        self.device = device
        self.version = combined_version(files_version, self.precision, code)
        self.name = files.name
        self.max_length: int = (
            getattr(self._model.config, "max_position_embeddings", None) or _FALLBACK_LENGTH
        )
        vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        trial = [
            [(number + 1) * 7919 % vocabulary for number in range(length)][: self.max_length]
            for length in _TRIAL_LENGTHS
        ]
        self._exchange_layers(trial)
        self._head: Any = self._model.get_output_embeddings()
        self._head_is_all = self._probe(trial[0])
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        self.packed = self._head_is_all and self._try_packed(trial)
        """Whether windows run without padding."""
        # The kernel for packed rows on a GPU cannot do it, and time there goes elsewhere.
        self.shares_beginnings = self.packed and device.type == "cpu" and self._try_beginning(trial)

    @torch.inference_mode()
    def negative_log_likelihoods(self, windows: Sequence[Window]) -> Tensor:
        """For each window, the sum of −log p (natural) of its tokens from ``counted`` on, each given those
        before it: float64, on the device."""
        if not self._head_is_all:
            return torch.stack([self._by_all_logits(window) for window in windows])
        rows = [window.tokens for window in windows]
        if self.packed:
            hidden, starts = self._packed_hidden(rows, self._begun(windows))
        else:
            hidden, starts = self._padded_hidden(rows)
        # Where the tokens that count lie, computed here and not on the device, which then need not be asked.
        counts = [len(window.tokens) - window.counted for window in windows]
        places = np.concatenate(
            [
                np.arange(start + window.counted, start + len(window.tokens))
                for start, window in zip(starts, windows, strict=True)
            ]
        )
        targets = np.concatenate([np.asarray(window.tokens[window.counted :]) for window in windows])
        owners = np.repeat(np.arange(len(windows)), counts)
        losses = self._losses(hidden, to_device(places - 1, self.device), to_device(targets, self.device))
        sums = torch.zeros(len(windows), dtype=torch.float64, device=self.device)
        return sums.index_add_(0, to_device(owners, self.device), losses.double())

    def _begun(self, windows: Sequence[Window]) -> int:
        """How many tokens all windows begin with alike and need to be computed once: a chat template's opening, for
        the most part."""
        if not self.shares_beginnings or len(windows) < 2:
            return 0
        shortest, most = (
            min(windows, key=lambda window: window.counted),
            max(window.tokens for window in windows),
        )
        least = min(window.tokens for window in windows)
        alike = 0
        # What the least and the greatest of lists begin with alike, all begin with; the token before the first that
        # counts stays with its window.
        for number, (one, other) in enumerate(zip(least, most, strict=False)):
            if one != other or number >= shortest.counted - 1:
                break
            alike = number + 1
        return alike if alike >= _LEAST_BEGUN else 0

    def _packed_hidden(self, rows: Sequence[list[int]], begun: int = 0) -> tuple[Tensor, list[int]]:
        """Hidden states, tokens × width, and where each row starts among them; of the first ``begun`` tokens, which
        all rows have alike, there is one copy, and nobody may ask for it by the start of a row."""
        packed = pack([row[begun:] for row in rows], self.device, beginning=rows[0][:begun])
        with texts_apart(packed):
            hidden = self._model.base_model(
                input_ids=packed.tokens,
                position_ids=packed.positions,
                attention_mask=self._no_mask,
                use_cache=False,
            ).last_hidden_state
        starts = packed.bounds[1:-1] if begun else packed.bounds[:-1]
        return hidden[0], [start - begun for start in starts]

    def _padded_hidden(self, rows: Sequence[list[int]]) -> tuple[Tensor, list[int]]:
        """The same with padding on the right and no mask: under causal attention no position sees a later
        one, so what is padded there cannot reach the tokens that count, and attention takes its fast path."""
        longest = max(map(len, rows))
        tokens = np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
        hidden = self._model.base_model(
            input_ids=to_device(tokens, self.device), use_cache=False
        ).last_hidden_state
        return hidden.flatten(0, 1), [number * longest for number in range(len(rows))]

    def _losses(self, hidden: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        size = max(1, _LOGIT_BYTES[self.device.type] // (4 * int(self._head.out_features)))
        pieces = []
        for some, wanted in zip(torch.split(places, size), torch.split(targets, size), strict=True):
            logits = self._head(hidden[some])
            likelihoods = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
            pieces.append(-likelihoods.gather(1, wanted[:, None])[:, 0])
        return torch.cat(pieces)

    def _by_all_logits(self, window: Window) -> Tensor:
        tokens = torch.tensor([window.tokens], device=self.device)
        logits = self._model(input_ids=tokens, use_cache=False).logits[0, window.counted - 1 : -1]
        losses = torch.nn.functional.cross_entropy(
            logits.float(), tokens[0, window.counted :], reduction="none"
        )
        return losses.double().sum()

    @torch.inference_mode()
    def _exchange_layers(self, trial: list[list[int]]) -> None:
        if self.device.type != "cpu":
            return

        def answer() -> Tensor:
            tokens = torch.tensor(trial[:1])
            logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
            return logits.float()

        if self.precision == "int8":
            # The output layer stays: every token's likelihood is made of it directly.
            head = self._model.get_output_embeddings()
            try:
                exchange_linear_layers(self._model, IntegerLinear, kept=() if head is None else (head,))
                answer()
            except (AttributeError, NotImplementedError, RuntimeError) as error:
                raise ValueError(f"int8 does not work with {self.name} on this CPU: {error}") from error
        if self.precision in ("float32", "int8"):
            order_linear_layers(self._model, answer, PACKED_TOLERANCE["float32"])

    @torch.inference_mode()
    def _probe(self, row: list[int]) -> bool:
        if getattr(self._head, "out_features", None) is None:
            return False
        tokens = torch.tensor([row], device=self.device)
        whole = self._model(input_ids=tokens, use_cache=False).logits
        hidden = getattr(self._model.base_model(input_ids=tokens, use_cache=False), "last_hidden_state", None)
        if hidden is None or hidden.shape[-1] != self._head.in_features:
            return False
        return torch.allclose(self._head(hidden).float(), whole.float(), rtol=1e-4, atol=1e-4)

    @torch.inference_mode()
    def _try_packed(self, trial: list[list[int]]) -> bool:
        if self.device.type == "cuda" and self.precision == "float32":
            return False  # the kernel for packed rows has no float32
        alone = torch.cat([self._padded_hidden([row])[0] for row in trial])
        try:
            use_packed_attention(self._model, on=True)
        except (ValueError, ImportError, NotImplementedError):
            use_packed_attention(self._model, on=False)
            return False
        if agrees(lambda: self._packed_hidden(trial)[0], lambda: alone, PACKED_TOLERANCE[self.precision]):
            return True
        use_packed_attention(self._model, on=False)
        return False

    @torch.inference_mode()
    def _try_beginning(self, trial: list[list[int]]) -> bool:
        begun = min(map(len, trial)) - 1
        if begun < 1:
            return False

        def rests(hidden: Tensor, starts: list[int]) -> Tensor:
            return torch.cat(
                [hidden[start + begun : start + len(row)] for start, row in zip(starts, trial, strict=True)]
            )

        return agrees(
            lambda: rests(*self._packed_hidden(trial, begun)),
            lambda: rests(*self._packed_hidden(trial)),
            PACKED_TOLERANCE[self.precision],
        )
