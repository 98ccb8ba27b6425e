"""Sentence embeddings: one unit vector per text, for drift of text and for finding like texts.

Mean of the last hidden states over the text's tokens (padding masked out), then scaled to length 1: the
pooling that sentence-transformers' all-MiniLM-L6-v2 was trained with (Reimers and Gurevych, 2019). Longer
texts are cut at ``max_length`` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from evaluators.engine.batching import Batcher
from evaluators.engine.devices import choose_device
from evaluators.engine.model_files import model_name, model_version, without_progress_bars

_CODE: Final = "embedding-1"


class Embedding:
    """Any encoder of the Hugging Face kind with mean pooling."""

    name = "embedding"

    def __init__(
        self,
        source: str,
        *,
        device: str | None = None,
        max_length: int = 256,
        batch_tokens: int | None = None,
    ) -> None:
        """``source``: a folder or a Hugging Face id; ``OSError`` when there is no such model."""
        chosen = choose_device(device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        with without_progress_bars():
            model = AutoModel.from_pretrained(source, dtype=torch.float32)
        self._model: Any = model.to(chosen).eval()
        self._device = chosen
        self._max_length = min(max_length, int(self._model.config.max_position_embeddings))
        self.dimensions: int = self._model.config.hidden_size
        budget = batch_tokens if batch_tokens is not None else (4096 if chosen.type == "cpu" else 65_536)
        self._batcher: Batcher[Any] = Batcher(budget=budget, max_items=1024)
        self.version = model_version(source, self._model.config, f"{_CODE} {self._max_length}")
        self.model = model_name(source)
        self.device = str(chosen)

    def embed(self, texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """float32, texts × dimensions, each row of length 1; a row of NaN for a text that the model failed
        on."""
        vectors = np.full((len(texts), self.dimensions), np.nan, dtype=np.float32)
        if not texts:
            return vectors
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        tokens: list[list[int]] = self._tokenizer(clean, truncation=True, max_length=self._max_length)[
            "input_ids"
        ]
        rows = self._batcher.run(
            [len(numbers) for numbers in tokens],
            lambda indices: self._vectors([tokens[index] for index in indices]),
            lambda _index, _reason, _error: None,
        )
        for number, row in enumerate(rows):
            if row is not None:
                vectors[number] = row
        return vectors

    @torch.inference_mode()
    def _vectors(self, tokens: list[list[int]]) -> list[Any]:
        longest = max(len(numbers) for numbers in tokens)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(tokens), longest), padding, dtype=torch.int64)
        mask = torch.zeros(len(tokens), longest, dtype=torch.int64)
        for row, numbers in enumerate(tokens):
            ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
            mask[row, : len(numbers)] = 1
        mask = mask.to(self._device)
        hidden = self._model(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
        weight = mask[:, :, None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return list(torch.nn.functional.normalize(mean, dim=1).float().cpu().numpy())
