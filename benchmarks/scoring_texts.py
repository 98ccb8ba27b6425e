"""What ``benchmarks.evaluators`` scores, and the models that it scores with: texts of mixed length as a chat has
them, made from a seed, and random weights in the shape of known models, so that nothing is downloaded.

Lengths are lognormal: about 40 tokens in the median, a tail to about 500. Imports torch, transformers and
numpy only, as the scoring models do.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

LABELS: Final = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
PREPARED: Final = Path.home() / ".cache/servelens/models"
_MEDIAN_WORDS: Final = 33.0
_SPREAD: Final = 1.0
_MOST_WORDS: Final = 400
_OPENINGS: Final = (
    "Could you explain", "Please write", "I would like to know", "What is the difference between", "Sure, here is",
    "The short answer is", "Thank you for", "I am afraid that", "First of all,", "In general,", "As far as I know",
    "Let me summarise", "That depends on", "You could try", "Nobody here understands",
)  # fmt: skip
_VOCABULARY: Final = (
    "the of and to a in that it is was for on are with as his they be at one have this from or had by not "
    "word but what some we can out other were all there when up use your how said an each she which do "
    "their time if will way about many then them write would like so these her long make thing see him "
    "two has look more day could go come did number sound no most people my over know water than call "
    "first who may down side been now find any new work part take get place made live where after back "
    "little only round man year came show every good me give our under name very through just form "
    "sentence great think say help low line differ turn cause much mean before move right boy old too "
    "same tell does set three want air well also play small end put home read hand port large spell add "
    "even land here must big high such follow act why ask men change went light kind off need house "
    "picture try again animal point mother world near build self earth father model endpoint latency "
    "customer invoice refund password account schedule delivery contract insurance temperature "
    "probability distribution configuration authentication idiot stupid garbage wonderful terrible "
    "unacceptable neural embedding quantisation internationalisation"
)
_WORDS: Final = tuple(_VOCABULARY.split())


@dataclass(frozen=True, slots=True)
class Models:
    """Folders of the models compared, and what they are."""

    classifier: Path
    language_model: Path
    classifier_name: str
    language_model_name: str


def make_conversations(count: int, seed: int) -> list[tuple[str, str]]:
    """``count`` prompts with their answers, which are :func:`make_texts` of the seed; prompts are half as long."""
    prompts = make_texts(count, seed + 1, median_words=_MEDIAN_WORDS / 2)
    return list(zip(prompts, make_texts(count, seed), strict=True))


def make_texts(count: int, seed: int, *, median_words: float = _MEDIAN_WORDS) -> list[str]:
    """``count`` texts of sentences; the same for the same seed."""
    chance = np.random.default_rng(seed)
    # Frequent words are frequent, as in a language: one over the rank.
    weights = 1.0 / np.arange(1, len(_WORDS) + 1)
    lengths = np.exp(chance.normal(np.log(median_words), _SPREAD, count)).round().clip(2, _MOST_WORDS)
    return [_text(chance, int(length), weights / weights.sum()) for length in lengths]


def _text(chance: np.random.Generator, length: int, weights: np.ndarray[Any, Any]) -> str:
    words = list(chance.choice(_WORDS, size=length, p=weights))
    sentences = []
    while words:
        size = int(chance.integers(6, 18))
        opening = _OPENINGS[int(chance.integers(len(_OPENINGS)))]
        some, words = words[:size], words[size:]
        begins = " ".join(some) if len(some) < 6 else f"{opening} {' '.join(some[3:])}"
        sentences.append(begins + (". ", ", ", "? ", "!\n", ": ")[int(chance.integers(5))])
    return "".join(sentences).strip()


def make_models(folder: Path, texts: list[str], *, large: bool, quick: bool) -> Models:
    """Model folders under ``folder``. ``large``: Llama-1B's shape, else SmolLM2-135M (the prepared one, where it
    is). ``quick``: two layers of each, to see that everything runs."""
    torch.manual_seed(0)
    classifier = _classifier(folder / "bert-base", texts, quick=quick)
    prepared = PREPARED / "SmolLM2-135M-Instruct"
    if not large and not quick and prepared.is_dir():
        return Models(classifier, prepared, "BERT-base, random weights", prepared.name)
    shape = "Llama-1B" if large else "SmolLM2-135M"
    model = _language_model(folder / shape, texts, large=large, quick=quick)
    short = ", two layers" if quick else ""
    return Models(classifier, model, f"BERT-base{short}, random weights", f"{shape}{short}, random weights")


def _classifier(folder: Path, texts: list[str], *, quick: bool) -> Path:
    prepared = PREPARED / "all-minilm-l6-v2"
    folder.mkdir(parents=True)
    if (prepared / "tokenizer.json").is_file():
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            if (prepared / name).is_file():
                shutil.copy(prepared / name, folder / name)
        told = folder / "tokenizer_config.json"
        told.write_text(json.dumps({**json.loads(told.read_text()), "model_max_length": 512}))
    else:
        _word_pieces(texts).save_pretrained(folder)
    config = BertConfig(
        num_hidden_layers=2 if quick else 12,
        problem_type="multi_label_classification",
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _language_model(folder: Path, texts: list[str], *, large: bool, quick: bool) -> Path:
    folder.mkdir(parents=True)
    prepared = PREPARED / "SmolLM2-135M-Instruct"
    if (prepared / "tokenizer.json").is_file():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(prepared / name, folder / name)
    else:
        _byte_pairs(texts).save_pretrained(folder)
    sizes: dict[str, Any] = (
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        }
        if large
        else {
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
        }
    )
    if quick:
        sizes["num_hidden_layers"] = 2
    config = LlamaConfig(
        **sizes, max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2
    )
    LlamaForCausalLM(config).to(torch.bfloat16 if large else torch.float32).save_pretrained(folder)
    return folder


def _word_pieces(texts: list[str]) -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        model_max_length=512,
    )


def _byte_pairs(texts: list[str]) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=["<|end|>", "<|s|>", "<|e|>"], show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def model_flops(folder: Path, lengths: list[int]) -> float:
    """Floating-point operations of one pass over texts of ``lengths`` tokens: two per weight of a linear layer and
    token, and four per width, layer and pair of tokens in attention (half of the pairs if causal)."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        causal = config.model_type == "llama"
        model: Any = (
            AutoModelForCausalLM.from_config(config) if causal else BertForSequenceClassification(config)
        )
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    tokens, pairs = float(sum(lengths)), float(sum(length * length for length in lengths))
    attention = 4.0 * config.hidden_size * config.num_hidden_layers * pairs * (0.5 if causal else 1.0)
    return 2.0 * weights * tokens + attention
