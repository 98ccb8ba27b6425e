"""In which numbers a model computes.

``float32`` is the reference that every score is compared with. ``bfloat16`` is a GPU's (half the memory, many
times the speed, about three digits). ``int8`` is a CPU's (:class:`evaluators.engine.linear_layers.IntegerLinear`).
``float16`` is for GPUs without bfloat16. ``auto`` is bfloat16 on a GPU that has it and else float32; a
classifier's ``auto`` may be int8, see :mod:`evaluators.engine.classifier_model`.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import torch

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16", "int8"]

PACKED_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2, "int8": 1e-2}
"""How far a model's answer in a packed row may lie from its answer alone, relative to the largest."""

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """``ValueError`` when ``device`` cannot compute in ``precision``."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}.")
    if precision == "int8" and device.type != "cpu":
        raise ValueError(f"precision int8 is for a CPU, not for {device}; bfloat16 is faster there.")


def usual_precision(precision: str, device: torch.device) -> str:
    """``precision``, with ``auto`` resolved for ``device``."""
    if precision != "auto":
        return precision
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return "float32"


def dtype_of(precision: str) -> torch.dtype:
    """Of the weights when they are loaded."""
    return torch.float32 if precision == "int8" else _DTYPES[precision]


def integers_win(device: torch.device) -> bool:
    """Whether int8 is faster than float32 there, by the kind of processor alone: what is chosen must not
    depend on how busy a machine was when the model was loaded."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
