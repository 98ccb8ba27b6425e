from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evaluators.engine.linear_layers import (
    IntegerLinear,
    OrderedLinear,
    exchange_linear_layers,
    order_linear_layers,
)


@pytest.mark.parametrize("bias", [True, False])
def test_ordered_weights_compute_the_same(bias: bool) -> None:
    torch.manual_seed(2)
    plain = nn.Linear(96, 40, bias=bias)
    inputs = torch.randn(2, 33, 96)
    with torch.inference_mode():
        torch.testing.assert_close(OrderedLinear(plain)(inputs), plain(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_integers_compute_what_their_definition_says(bias: bool) -> None:
    torch.manual_seed(2)
    plain = nn.Linear(96, 40, bias=bias)
    inputs = torch.randn(33, 96) * torch.logspace(-6, 4, 33)[:, None]
    weight = plain.weight.detach().double()
    weight_scale = weight.abs().amax(1, keepdim=True) / 63
    scale = inputs.double().abs().amax(1, keepdim=True) / 127
    levels = torch.floor(inputs.double() / scale + 0.5)
    expected = (levels @ torch.round(weight / weight_scale).T) * scale * weight_scale.T
    with torch.inference_mode():
        found = IntegerLinear(plain)(inputs)
        if bias:
            expected = expected + plain.bias.detach().double()
        off = (found.double() - expected).abs()
        exact = inputs.double() @ weight.T + (plain.bias.detach().double() if bias else 0.0)
    # One level more or less in a sum, where a value lies half way between two.
    assert (off <= 1.5 * float(weight_scale.max()) * 63 * scale + 1e-6).all()
    assert (off / (scale + 1e-6)).median() < 1e-3
    assert ((found.double() - exact).abs() / (inputs.double().norm(dim=1, keepdim=True))).max() < 0.02


def test_sums_do_not_saturate_where_inputs_and_weights_are_at_their_limits() -> None:
    plain = nn.Linear(256, 8, bias=False)
    with torch.no_grad():
        plain.weight.fill_(0.5)
    with torch.inference_mode():
        found = IntegerLinear(plain)(torch.full((3, 256), 2.0))
    torch.testing.assert_close(found, torch.full((3, 8), 256.0), rtol=1e-5, atol=0.0)


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(3)
    layer = IntegerLinear(nn.Linear(64, 24))
    rows = torch.randn(20, 64)
    rows[7] *= 1e6
    with torch.inference_mode():
        together = layer(rows)
        alone = torch.cat([layer(row[None]) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


def test_what_is_not_finite_stays_visible_in_its_own_row() -> None:
    layer = IntegerLinear(nn.Linear(16, 4))
    rows = torch.zeros(4, 16)
    rows[1, 3] = torch.nan
    rows[2, 5] = torch.inf
    with torch.inference_mode():
        finite = layer(rows).isfinite()
    assert finite.all(dim=1).tolist() == [True, False, False, True]
    assert not finite[1:3].any()


def test_layers_are_exchanged_once_and_can_be_put_back() -> None:
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict(
        {"first": shared, "second": nn.Sequential(shared, nn.Tanh()), "head": nn.Linear(4, 2)}
    )
    originals = dict(model.named_modules(remove_duplicate=False))
    done = exchange_linear_layers(model, OrderedLinear, kept=(model["head"],))
    assert isinstance(model["first"], OrderedLinear)
    assert model["second"][0] is model["first"]
    assert model["head"] is originals["head"]
    done.undo()
    assert dict(model.named_modules(remove_duplicate=False)) == originals


def test_layers_that_do_not_compute_the_same_are_put_back() -> None:
    class Fickle(nn.Module):
        """Counts its runs and answers with that, once its layer is another."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.runs = 0

        def forward(self) -> Tensor:
            self.runs += 1
            return torch.full((2,), float(self.runs))

    model = Fickle()
    plain = model.layer
    assert not order_linear_layers(model, model, 1e-3)
    assert model.layer is plain

    steady = nn.Sequential(nn.Linear(8, 8))
    inputs = torch.randn(2, 8)
    with torch.inference_mode():
        assert order_linear_layers(steady, lambda: steady(inputs), 1e-3)
    assert isinstance(steady[0], OrderedLinear)


def test_a_layer_that_cannot_be_made_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers = list(model)
    made: list[nn.Module] = []

    def once(linear: nn.Linear) -> nn.Module:
        if made:
            raise NotImplementedError
        made.append(nn.Identity())
        return made[0]

    with pytest.raises(NotImplementedError):
        exchange_linear_layers(model, once)
    assert list(model) == layers
