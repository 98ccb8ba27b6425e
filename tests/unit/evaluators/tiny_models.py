"""Small models with random weights, saved as the folders that real ones come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from evaluators.engine.model_files import without_progress_bars
from evaluators.scorers.toxicity_network import VOCABULARY, ToxicityConfig, ToxicityNetwork

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "and",
    "dog",
    "ran",
    "far",
    "away",
    "poison",
    "home",
    "user",
    "assistant",
]
SPECIAL = ["<unk>", "<s>", "</s>", "\n"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def tokenizer(*, chat: bool = False, leading: bool = False) -> Any:
    """Words to numbers; with ``leading`` it puts ``<s>`` in front of every text, as Llama's does."""
    numbers = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    inner.decoder = decoders.Fuse()
    if leading:
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", numbers["<s>"])])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def language_model(folder: Path, kind: str = "llama", *, chat: bool = False, leading: bool = False) -> Path:
    """A causal model of two layers over :func:`tokenizer`'s words; ``kind`` is llama, gpt2 or gemma2."""
    size = len(SPECIAL + WORDS)
    torch.manual_seed(7)
    shape = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    model: Any
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.3))
    elif kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=size,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=64,
                initializer_range=0.3,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    else:
        # Its logits are not the output layer's alone: they are capped.
        model = Gemma2ForCausalLM(
            Gemma2Config(
                **shape, head_dim=8, final_logit_softcapping=2.0, sliding_window=32, initializer_range=0.3
            )
        )
    with without_progress_bars():
        model.save_pretrained(folder)
    tokenizer(chat=chat, leading=leading).save_pretrained(folder)
    return folder


def break_word(folder: Path, word: str) -> None:
    """Make the model of :func:`language_model` (Llama) answer NaN wherever it has read ``word``."""
    model = LlamaForCausalLM.from_pretrained(folder)
    # Untied, so that only what is read is broken and not every word's probability.
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.model.embed_tokens.weight[(SPECIAL + WORDS).index(word)] = torch.nan
    model.save_pretrained(folder)


def toxicity_network(folder: Path) -> Path:
    """A toxicity folder with random weights over :data:`WORDS`; ``poison`` is answered with NaN, and ``home`` has a
    number that the network does not have, so that it raises."""
    torch.manual_seed(11)
    config = ToxicityConfig(
        vocab_size=len(WORDS) + 1,
        embedding_size=8,
        hidden_size=6,
        dense_size=5,
        max_length=20,
        separators="!.,",
        labels=LABELS,
    )
    network = ToxicityNetwork(config)
    numbers = {word: number for number, word in enumerate(WORDS, 1)}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.7)
        network.embedding.weight[numbers["poison"]] = torch.nan
    with without_progress_bars():
        network.save_pretrained(folder)
    numbers["home"] = 10_000
    (folder / VOCABULARY).write_text(json.dumps(numbers))
    return folder


def encoder(folder: Path) -> Path:
    """A BERT of two layers over :func:`tokenizer`'s words."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    with without_progress_bars():
        BertModel(config).save_pretrained(folder)
    tokenizer(leading=True).save_pretrained(folder)
    return folder
