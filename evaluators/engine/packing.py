"""Texts behind one another in one row, without padding, through a transformers model.

Everything in a transformer but attention works on each token alone, so texts of any lengths may lie behind
one another in one row as long as positions start again with each text and attention keeps them apart. The
latter is an attention function of transformers' ``AttentionInterface``; on a GPU it is FlashAttention's
kernel for such rows (Dao, 2023; ``torch.nn.attention.varlen``), elsewhere one call per text.

Invariant: a model runs packed only if its answers on a few rows of random tokens, packed, equal its own on
each row alone (:func:`agrees`). Models whose attention is of another kind (relative positions inside it,
sliding windows, capped logits) do not pass, and run padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

ATTENTION: Final = "servelens_packed"
"""The name of the attention function in transformers."""

_OTHER_ATTENTION: Final = ("sliding_window", "softcap", "s_aux", "position_bias", "cache")
_CURRENT: ContextVar[Packed | None] = ContextVar("servelens_packed", default=None)


@dataclass(frozen=True, slots=True)
class Packed:
    """``tokens`` and ``positions``: int64, 1 × all texts' tokens, on the device. Text ``i`` lies from
    ``bounds[i]`` to ``bounds[i + 1]``; ``starts`` are the same bounds as int32 on the device. With ``begun``
    tokens in it, the first text is what all others begin with: they lie here without it and see it before
    themselves, under causal attention only."""

    tokens: Tensor
    positions: Tensor
    bounds: list[int]
    starts: Tensor
    longest: int
    begun: int = 0

    @property
    def firsts(self) -> Tensor:
        """Where each text begins: int64, on the device."""
        return self.starts[:-1].long()


def pack(
    texts: Sequence[Sequence[int]],
    device: torch.device,
    *,
    first_position: int = 0,
    beginning: Sequence[int] = (),
) -> Packed:
    """One row of all ``texts``' token numbers; none of them may be empty. ``beginning`` is in front of each of
    them and is in the row once."""
    begun = len(beginning)
    if begun:
        texts = [beginning, *texts]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    bounds = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(lengths, out=bounds[1:])
    tokens = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
    positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths) + first_position
    positions[begun:] += begun
    return Packed(
        tokens=to_device(tokens[None], device),
        positions=to_device(positions[None], device),
        bounds=bounds.tolist(),
        starts=to_device(bounds.astype(np.int32), device),
        longest=int(lengths.max()),
        begun=begun,
    )


def to_device(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """``values`` on ``device``; to a GPU from pinned memory, so that nobody waits for the transfer."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def texts_apart(packed: Packed) -> Iterator[None]:
    """Within it, models whose attention is :data:`ATTENTION` see ``packed``'s texts apart."""
    token = _CURRENT.set(packed)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def use_packed_attention(model: Any, *, on: bool) -> None:
    """Give ``model`` the packed attention, or PyTorch's again. ``ValueError`` or another error of
    transformers when it does not take it."""
    model.set_attn_implementation(ATTENTION if on else "sdpa")
    if on and model.config._attn_implementation != ATTENTION:
        raise ValueError(f"{type(model).__name__} has an attention of its own")


def agrees(packed: Callable[[], Tensor], alone: Callable[[], Tensor], tolerance: float) -> bool:
    """Whether both computations give the same, within ``tolerance`` relative to the largest value. One that
    raises does not; that is how a model says that it cannot be run packed."""
    try:
        ours = packed().float()
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001  # foreign code that was not written to be called like this
        return False
    theirs = alone().float()
    if ours.shape != theirs.shape:
        return False
    scale = float(theirs.abs().max()) + 1e-6
    return bool((ours - theirs).abs().max() <= tolerance * scale)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of the current row. ``query``: 1 × heads × tokens × width, ``key`` and
    ``value`` likewise with as many heads or a divisor of it. Gives 1 × tokens × heads × width."""
    packed = _CURRENT.get()
    if packed is None:
        raise RuntimeError("packed attention outside of a packed row")
    other = [name for name in _OTHER_ATTENTION if options.get(name) is not None]
    if other:
        raise NotImplementedError(f"packed attention has no {other[0]}")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    inside = flash_attention if query.is_cuda else attention_by_text
    return inside(query, key, value, packed, causal=bool(causal), scale=scaling), None


def attention_by_text(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, *, causal: bool, scale: float | None
) -> Tensor:
    """One call of PyTorch's attention per text."""
    answer = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    grouped = query.shape[1] != key.shape[1]
    begun = packed.begun
    if begun and not causal:
        raise NotImplementedError("a common beginning would have to see each of the texts")
    for start, end in zip(packed.bounds[:-1], packed.bounds[1:], strict=True):
        keys, values, mask = key[:, :, start:end], value[:, :, start:end], None
        if begun and start:
            keys = torch.cat((key[:, :, :begun], keys), dim=2)
            values = torch.cat((value[:, :, :begun], values), dim=2)
            seen = torch.ones(end - start, begun + end - start, dtype=torch.bool, device=query.device)
            mask = seen.tril(begun)
        own = scaled_dot_product_attention(
            query[:, :, start:end],
            keys,
            values,
            attn_mask=mask,
            is_causal=causal and mask is None,
            scale=scale,
            enable_gqa=grouped,
        )
        answer[:, start:end] = own.transpose(1, 2)
    return answer


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: Packed,
    *,
    causal: bool,
    scale: float | None,
    kernel: Callable[..., Any] = varlen_attn,
) -> Tensor:
    """All texts in one call of ``kernel``, which has the signature of ``varlen_attn`` and, other than that one,
    may work on a CPU."""
    if packed.begun:
        raise NotImplementedError("the kernel for packed rows has no common beginning")
    answer: Tensor = kernel(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        packed.starts,
        packed.starts,
        packed.longest,
        packed.longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return answer[None]


def _no_mask(*_arguments: Any, **_options: Any) -> None:
    """Masks are never made: what may see what follows from the row."""


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
