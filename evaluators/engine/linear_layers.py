"""A CPU's linear layers: weights laid out once for oneDNN, in float32 or as 8-bit integers.

PyTorch's own layer hands the weights to the matrix library as they are, call for call; here they are put
into the order that oneDNN's kernels read, when the model is loaded. That computes the same in float32 and is
faster on most CPUs, most of all for short texts.

Integers: each row of the input is scaled by its own largest magnitude to 8 bits, each row of the weights to
7 (two products of 8 by 7 bits fit into the 16-bit sums of CPUs without VNNI, which saturate otherwise;
https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html). A row's scale is its own, so a
text's score does not depend on its batch.

Both use operators that PyTorch's compiler uses and does not promise to keep; where they are missing, or do
not compute what the plain layer does, the plain layer stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

_ROWS: Final = 512
"""Tokens of a usual batch; a hint for the layout."""
_INPUT_LEVELS: Final = 127
_WEIGHT_LEVELS: Final = 63
_ZERO: Final = 128


class OrderedLinear(nn.Module):
    """``nn.Linear`` in float32 on a CPU, its weights in oneDNN's order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, self._bias, "none", [], "")
        return answer


class IntegerLinear(nn.Module):
    """``nn.Linear`` on a CPU with 8-bit inputs and 7-bit weights; sums are exact 32-bit integers."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight = linear.weight.detach().float()
        self._scales = (weight.abs().amax(dim=1) / _WEIGHT_LEVELS).clamp_min(1e-12)
        levels = (weight / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(levels, None)
        self._half = torch.tensor(_ZERO + 0.5)
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)
        self._bias = None if linear.bias is None else linear.bias.detach().float()

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, self.in_features)
        scale = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True)
        scale = (scale / _INPUT_LEVELS).clamp_min(1e-30)
        # One pass: cutting off after adding a half is rounding, for what is added to is positive.
        levels = torch.addcmul(self._half, rows, scale.reciprocal()).to(torch.uint8)
        answer: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(levels, 1.0, _ZERO, self._weight, self._scales, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        # What is not finite has no level: it must stay visible, and in its own row only.
        answer.mul_(scale)
        if self._bias is not None:
            answer.add_(self._bias)
        return answer.view(*inputs.shape[:-1], self.out_features)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Linear layers of a model that were exchanged, and can be put back."""

    places: list[tuple[nn.Module, str, nn.Module]]

    def undo(self) -> None:
        for parent, name, original in self.places:
            setattr(parent, name, original)


def exchange_linear_layers(
    model: nn.Module, make: Callable[[nn.Linear], nn.Module], *, kept: tuple[nn.Module, ...] = ()
) -> Exchange:
    """Exchange each plain linear layer of ``model`` for what ``make`` gives of it; a layer that is used in
    several places, by the same one. ``kept`` layers stay."""
    made: dict[int, nn.Module] = {}
    places: list[tuple[nn.Module, str, nn.Module]] = []
    done = Exchange(places)
    try:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and not any(child is layer for layer in kept):
                    if id(child) not in made:
                        made[id(child)] = make(child)
                    places.append((parent, name, child))
                    setattr(parent, name, made[id(child)])
    except Exception:
        done.undo()
        raise
    return done


def order_linear_layers(model: Any, answer: Callable[[], Tensor], tolerance: float) -> bool:
    """Give a float32 ``model`` on a CPU :class:`OrderedLinear` layers, if ``answer()``, a computation by it,
    gives the same then, within ``tolerance`` relative to the largest value. Says whether they stayed."""
    before = answer()
    try:
        done = exchange_linear_layers(model, OrderedLinear)
    except (AttributeError, NotImplementedError, RuntimeError):  # a PyTorch or a CPU without the operators
        return False
    try:
        after = answer()
        near = bool((after - before).abs().max() <= tolerance * (float(before.abs().max()) + 1e-6))
    except (AttributeError, NotImplementedError, RuntimeError):
        near = False
    if not near:
        done.undo()
    return near
