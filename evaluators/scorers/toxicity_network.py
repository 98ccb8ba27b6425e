"""The toxicity network as a transformers model: word embedding → bidirectional LSTM → maximum over time →
two dense layers.

It computes what Keras 2 computed for the published weights (package tox-block, MIT), trained on the six
labels of the Jigsaw toxic comment challenge: gates are Keras 2's ``hard_sigmoid``, ``clamp(0.2 x + 0.5, 0,
1)``, and texts are padded on the left to the full length *without a mask*: the padding is part of what the
network was trained on and moves its answers, so every text runs over all ``max_length`` steps, whatever it
is batched with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

VOCABULARY: Final = "vocabulary.json"
PADDING: Final = 0


class ToxicityConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; ``separators`` are the characters that split words beside the space."""

    model_type = "servelens-toxicity"

    vocab_size: int = 20_000
    embedding_size: int = 50
    hidden_size: int = 50
    dense_size: int = 50
    max_length: int = 100
    separators: str = ""
    labels: list[str] | None = None


class ToxicityNetwork(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    """Word numbers (texts × ``max_length``, left-padded with 0) to probabilities (texts × labels)."""

    config_class = ToxicityConfig
    base_model_prefix = "toxicity"

    def __init__(self, config: ToxicityConfig) -> None:
        super().__init__(config)
        hidden, inputs = config.hidden_size, config.embedding_size
        self.embedding = nn.Embedding(config.vocab_size, inputs)
        # The two directions are one batched matrix: [0] reads forward, [1] backward. Gates in Keras' order
        # i, f, c, o.
        self.kernel = nn.Parameter(torch.zeros(2, inputs, 4 * hidden))
        self.recurrent_kernel = nn.Parameter(torch.zeros(2, hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(2, 4 * hidden))
        self.dense = nn.Linear(2 * hidden, config.dense_size)
        self.output = nn.Linear(config.dense_size, len(config.labels or ()))
        self.post_init()

    def forward(self, input_ids: Tensor) -> Tensor:
        """``input_ids``: int64, texts × steps. Returns float32 probabilities, texts × labels."""
        words = self.embedding(input_ids).transpose(0, 1)
        both = torch.stack((words, words.flip(0)))
        # All steps' input projections at once: directions × steps × texts × 4 hidden.
        projected = torch.matmul(both, self.kernel[:, None]) + self.bias[:, None, None]
        peak = self._highest_state(projected)
        merged = torch.cat((peak[0], peak[1]), dim=-1)
        return torch.sigmoid(self.output(torch.relu(self.dense(merged))))

    def _highest_state(self, projected: Tensor) -> Tensor:
        """The maximum over all steps of each hidden state: directions × texts × hidden."""
        hidden = self.config.hidden_size
        # hard_sigmoid's factor and offset are applied once, to the weights and to all projections, not at
        # each step.
        scale = projected.new_full((4 * hidden,), 0.2)
        scale[2 * hidden : 3 * hidden] = 1.0
        offset = projected.new_full((4 * hidden,), 0.5)
        offset[2 * hidden : 3 * hidden] = 0.0
        steps = (projected * scale + offset).unbind(1)
        recurrent = self.recurrent_kernel * scale
        state = projected.new_zeros(2, projected.shape[2], hidden)
        cell = torch.zeros_like(state)
        peak = torch.full_like(state, -torch.inf)
        for step in steps:
            into, forget, candidate, out = torch.baddbmm(step, state, recurrent).chunk(4, dim=-1)
            cell = forget.clamp(0, 1) * cell + into.clamp(0, 1) * torch.tanh(candidate)
            state = out.clamp(0, 1) * torch.tanh(cell)
            peak = torch.maximum(peak, state)
        return peak


class WordVocabulary:
    """Text to word numbers, as Keras' ``Tokenizer`` does it: lower case, separators become spaces, unknown
    words go."""

    def __init__(self, words: dict[str, int], separators: str) -> None:
        self._words = words
        self._spaces = {ord(character): " " for character in separators}

    @classmethod
    def load(cls, folder: Path, separators: str) -> WordVocabulary:
        words: dict[str, int] = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        return cls(words, separators)

    def words(self, text: str) -> list[str]:
        return [word for word in text.lower().translate(self._spaces).split(" ") if word]

    def numbers(self, words: Sequence[str]) -> list[int]:
        return [number for word in words if (number := self._words.get(word)) is not None]


def padded(numbers: Sequence[Sequence[int]], length: int) -> Tensor:
    """Rows of exactly ``length`` numbers: shorter ones padded on the left, longer ones keep their end."""
    rows = torch.full((len(numbers), length), PADDING, dtype=torch.int64)
    for row, values in enumerate(numbers):
        kept: Any = list(values[-length:])
        if kept:
            rows[row, length - len(kept) :] = torch.tensor(kept, dtype=torch.int64)
    return rows
