"""A causal language model of the Hugging Face kind, and the negative log-likelihood of tokens under it.

The logits of a long text over a large vocabulary are the biggest thing in this computation by far, so they
are never all kept: the hidden states of the tokens that count go through the output layer a slice at a
time. That is valid for models whose logits are that layer and nothing else (no soft cap, no scale); the
model itself is asked once, when it is loaded, whether it is of that kind, and if not, its own logits are
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.engine.model_files import model_name, model_version, without_progress_bars

_LOGIT_BYTES: Final = 64 * 1024 * 1024
_FALLBACK_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids of one pass; ``counted`` is the position of the first token whose likelihood is wanted (at
    least 1)."""

    tokens: list[int]
    counted: int


class LanguageModel:
    """Loaded weights and tokenizer. ``max_length`` is the most tokens of one pass."""

    def __init__(self, source: str, *, device: torch.device, dtype: torch.dtype, code: str) -> None:
        """``source`` is a folder or a Hugging Face id; ``OSError`` when there is no such model."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        self._model: Any = model.to(device).eval()
        self._head: Any = self._model.get_output_embeddings()
        self.device = device
        self.version = model_version(source, self._model.config, code)
        self.name = model_name(source)
        self.max_length: int = (
            getattr(self._model.config, "max_position_embeddings", None) or _FALLBACK_LENGTH
        )
        self._head_is_all = self._probe()

    @torch.inference_mode()
    def negative_log_likelihoods(self, windows: Sequence[Window]) -> list[float]:
        """For each window, the sum of −log p (natural) of its tokens from ``counted`` on, each given those
        before it."""
        longest = max(len(window.tokens) for window in windows)
        # Right padding and no mask: under causal attention no position sees a later one, so what is padded
        # there cannot reach the tokens that count, and attention takes its fast path.
        tokens = torch.zeros(len(windows), longest, dtype=torch.int64)
        rows, positions = [], []
        for row, window in enumerate(windows):
            length = len(window.tokens)
            tokens[row, :length] = torch.tensor(window.tokens, dtype=torch.int64)
            positions.append(torch.arange(window.counted, length))
            rows.append(torch.full((length - window.counted,), row, dtype=torch.int64))
        tokens = tokens.to(self.device)
        owner, position = torch.cat(rows).to(self.device), torch.cat(positions).to(self.device)
        targets = tokens[owner, position]
        if self._head_is_all:
            hidden = self._model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            losses = self._losses(hidden[owner, position - 1], targets)
        else:
            losses = self._losses_by_row(tokens, owner, position, targets)
        sums = torch.zeros(len(windows), dtype=torch.float64, device=self.device)
        totals: list[float] = sums.index_add_(0, owner, losses.double()).tolist()
        return totals

    def _losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        size = max(1, _LOGIT_BYTES // (4 * int(self._head.weight.shape[0])))
        pieces = []
        for some, wanted in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
            pieces.append(
                torch.nn.functional.cross_entropy(self._head(some).float(), wanted, reduction="none")
            )
        return torch.cat(pieces)

    def _losses_by_row(self, tokens: Tensor, owner: Tensor, position: Tensor, targets: Tensor) -> Tensor:
        losses = torch.empty(len(targets), dtype=torch.float32, device=self.device)
        for number in range(tokens.shape[0]):
            here = owner == number
            logits = self._model(input_ids=tokens[number : number + 1], use_cache=False).logits[0]
            losses[here] = torch.nn.functional.cross_entropy(
                logits[position[here] - 1].float(), targets[here], reduction="none"
            )
        return losses

    @torch.inference_mode()
    def _probe(self) -> bool:
        if self._head is None or getattr(self._head, "weight", None) is None:
            return False
        vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        tokens = (torch.arange(1, 17, device=self.device) * 7919 % vocabulary)[None]
        whole = self._model(input_ids=tokens, use_cache=False).logits
        hidden = getattr(self._model.base_model(input_ids=tokens, use_cache=False), "last_hidden_state", None)
        if hidden is None or hidden.shape[-1] != self._head.weight.shape[-1]:
            return False
        return torch.allclose(self._head(hidden).float(), whole.float(), rtol=1e-4, atol=1e-4)
