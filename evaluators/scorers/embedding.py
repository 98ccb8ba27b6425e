"""Sentence embeddings: how near an answer stays to its question, and one unit vector per side of a record for drift.

The score is the cosine of the two vectors: about 0 where they have nothing to do with each other, 1 where they say the
same. The vectors are what drift of text is found in; they are kept in a table of their own.

Mean of the last hidden states over the text's tokens (padding masked out), then scaled to length 1: the
pooling that sentence-transformers' all-MiniLM-L6-v2 was trained with (Reimers and Gurevych, 2019). Encoders that were
trained with the first token's state instead (BGE, for example) want ``pooling: cls``. Longer texts are cut at
``max_length`` tokens, so what comes later in a text has no say.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from evaluators.engine.batching import Batcher
from evaluators.engine.devices import choose_device
from evaluators.engine.model_files import model_name, model_version, offline_folder, without_progress_bars
from evaluators.evaluator import EMPTY, NOT_FINITE, Score, Target, Text, target_text

OFFLINE_MODEL: Final = "all-minilm-l6-v2"
PAYLOAD_TOO_LARGE: Final = "payload_too_large"
"""A side was over the payload limit, so the inference table does not have it."""

_CODE: Final = "embedding-2"
_SIDES: Final[tuple[Target, ...]] = ("request", "response")
_TOO_LARGE: Final[Mapping[Target, str]] = {
    "request": "MAX_REQUEST_SIZE_EXCEEDED",
    "response": "MAX_RESPONSE_SIZE_EXCEEDED",
}
_POOLINGS: Final = ("mean", "cls")

Vectors: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Pooling: TypeAlias = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class _Embedded:
    """Unit vector of a text; ``tokens`` that were read of it."""

    vector: np.ndarray[tuple[int], np.dtype[np.float32]]
    tokens: int


class Embedding:
    """An :class:`~evaluators.evaluator.Evaluator` over any encoder of the Hugging Face kind.

    A record with one side only is unscored, with that side's vector; so it asks for every record.
    """

    name = "embedding"
    target: Target = "response"
    columns = ("logging_error_codes",)

    def __init__(
        self,
        source: str,
        *,
        device: str | None = None,
        max_length: int = 256,
        batch_tokens: int | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        """``source``: a folder or a Hugging Face id.

        Raises ``OSError`` when there is no such model, ``ValueError`` for an option that makes no sense.
        """
        if pooling not in _POOLINGS:
            raise ValueError(f"pooling is mean or cls, not {pooling!r}.")
        if max_length < 4:
            raise ValueError(f"max_length is at least 4, not {max_length}.")
        chosen = choose_device(device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        with without_progress_bars():
            model = AutoModel.from_pretrained(source, dtype=torch.float32)
        self._model: Any = model.to(chosen).eval()
        self._device = chosen
        self._pooling = pooling
        self._max_length = min(
            max_length,
            int(self._tokenizer.model_max_length),
            int(getattr(self._model.config, "max_position_embeddings", max_length)),
        )
        self.dimensions: int = self._model.config.hidden_size
        budget = batch_tokens if batch_tokens is not None else (4096 if chosen.type == "cpu" else 65_536)
        self._batcher: Batcher[_Embedded | _Failure] = Batcher(budget=budget, max_items=1024)
        self.version = model_version(source, self._model.config, f"{_CODE} {self._max_length} {pooling}")
        self.model = model_name(source)
        self.device = str(chosen)

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """The cosine of prompt and answer, −1 to 1, and the vectors of the sides that exist; details: the ``tokens``
        of each side that were read."""
        sides = [{side: target_text(text, side) for side in _SIDES} for text in batch]
        # The same prompt comes again and again.
        distinct = list(dict.fromkeys(text for pair in sides for text in pair.values() if text is not None))
        known = dict(zip(distinct, self._embedded(distinct), strict=True))
        return [
            self._score(text, {side: known[words] for side, words in pair.items() if words is not None})
            for text, pair in zip(batch, sides, strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32, texts × dimensions, each row of length 1; a row of NaN for a text that the model failed
        on."""
        vectors = np.full((len(texts), self.dimensions), np.nan, dtype=np.float32)
        for number, row in enumerate(
            self._embedded([text.encode("utf-8", "replace").decode("utf-8") for text in texts])
        ):
            if isinstance(row, _Embedded):
                vectors[number] = row.vector
        return vectors

    def _score(self, text: Text, sides: Mapping[Target, _Embedded | _Failure]) -> Score:
        whole = {side: found for side, found in sides.items() if isinstance(found, _Embedded)}
        finite = {side: found for side, found in whole.items() if np.isfinite(found.vector).all()}
        vectors = {side: array("f", found.vector.tobytes()) for side, found in finite.items()}
        details: dict[str, float | str] = {
            f"{side}_tokens": float(found.tokens) for side, found in whole.items()
        }
        if len(finite) == len(_SIDES):
            cosine = float(finite["request"].vector.astype(np.float64) @ finite["response"].vector)
            # Rounding can lead a little over the end.
            return Score(min(1.0, max(-1.0, cosine)), details=details, vectors=vectors)
        for found in sides.values():
            if isinstance(found, _Failure):
                details["error"] = found.error
                return Score(None, unscored_reason=found.reason, details=details, vectors=vectors)
        if len(finite) < len(whole):
            return Score(None, unscored_reason=NOT_FINITE, details=details, vectors=vectors)
        codes = text.columns.get("logging_error_codes") or ()
        missing = [side for side in _SIDES if side not in sides]
        cut = any(_TOO_LARGE[side] in codes for side in missing)
        details["missing"] = " and ".join(missing)
        reason = PAYLOAD_TOO_LARGE if cut else EMPTY
        return Score(None, unscored_reason=reason, details=details, vectors=vectors)

    def _embedded(self, texts: Sequence[str]) -> list[_Embedded | _Failure]:
        if not texts:
            return []
        tokens: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)[
            "input_ids"
        ]
        return self._batcher.run(
            [len(numbers) for numbers in tokens],
            lambda indices: self._vectors([tokens[index] for index in indices]),
            lambda _index, reason, error: _Failure(reason, error),
        )

    @torch.inference_mode()
    def _vectors(self, tokens: list[list[int]]) -> list[_Embedded]:
        longest = max(len(numbers) for numbers in tokens)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(tokens), longest), padding, dtype=torch.int64)
        mask = torch.zeros(len(tokens), longest, dtype=torch.int64)
        for row, numbers in enumerate(tokens):
            ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
            mask[row, : len(numbers)] = 1
        mask = mask.to(self._device)
        hidden = self._model(input_ids=ids.to(self._device), attention_mask=mask).last_hidden_state
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weight = mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1)
        rows = torch.nn.functional.normalize(pooled, dim=1).float().cpu().numpy()
        return [_Embedded(row, len(numbers)) for row, numbers in zip(rows, tokens, strict=True)]


def build(
    *,
    models_dir: Path,
    model: str = OFFLINE_MODEL,
    device: str | None = None,
    max_length: int = 256,
    batch_tokens: int | None = None,
    pooling: Pooling = "mean",
) -> Embedding:
    """What the settings call ``embedding``; ``model`` is the offline one, a folder or a Hugging Face id."""
    source = str(offline_folder(models_dir, model)) if model == OFFLINE_MODEL else model
    return Embedding(source, device=device, max_length=max_length, batch_tokens=batch_tokens, pooling=pooling)
