"""Small sequence classifiers with random weights, saved as the folders that real ones come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from evaluators.engine.model_files import without_progress_bars
from tests.unit.evaluators.tiny_models import SPECIAL, WORDS, tokenizer

KINDS = ("bert", "roberta", "distilbert", "electra", "llama")
ENCODERS = KINDS[:-1]


def classifier(
    folder: Path,
    kind: str = "bert",
    *,
    labels: tuple[str, ...] = ("neutral", "toxic", "threat"),
    problem: str | None = "multi_label_classification",
    spread: float = 0.4,
) -> Path:
    """A classifier of two layers over :func:`tokenizer`'s words, between ``<s>`` and ``</s>``."""
    torch.manual_seed(3)
    common: dict[str, Any] = {
        "vocab_size": len(SPECIAL + WORDS) + 1,
        "max_position_embeddings": 40,
        "pad_token_id": len(SPECIAL + WORDS),
        "problem_type": problem,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    wide = {
        **common,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "initializer_range": spread,
    }
    model: Any
    if kind == "bert":
        model = BertForSequenceClassification(BertConfig(**wide))
    elif kind == "roberta":
        model = RobertaForSequenceClassification(
            RobertaConfig(**{**wide, "max_position_embeddings": 80}, bos_token_id=1, eos_token_id=2)
        )
    elif kind == "electra":
        model = ElectraForSequenceClassification(ElectraConfig(**wide, embedding_size=32))
    elif kind == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**wide, num_key_value_heads=2))
    else:
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "initializer_range": spread}
        model = DistilBertForSequenceClassification(DistilBertConfig(**common, **sizes))
    with without_progress_bars():
        model.save_pretrained(folder)
    words = tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    words.add_special_tokens({"pad_token": "<pad>"})
    words.save_pretrained(folder)
    return folder


def break_word(folder: Path, word: str) -> None:
    """Make a classifier of BERT's kind answer NaN wherever it has read ``word``."""
    model = BertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[(SPECIAL + WORDS).index(word)] = torch.nan
    with without_progress_bars():
        model.save_pretrained(folder)
