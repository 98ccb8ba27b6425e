from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evaluators.engine import packing
from evaluators.engine.language_model import LanguageModel, Window
from evaluators.engine.packing import (
    Packed,
    agrees,
    attention_by_text,
    flash_attention,
    pack,
    packed_attention,
    texts_apart,
    use_packed_attention,
)
from tests.unit.evaluators import tiny_models

CPU = torch.device("cpu")


def test_texts_lie_behind_one_another_and_positions_begin_again() -> None:
    packed = pack([[7, 8, 9], [5], [6, 4]], CPU, first_position=2)
    assert packed.tokens.tolist() == [[7, 8, 9, 5, 6, 4]]
    assert packed.positions.tolist() == [[2, 3, 4, 2, 2, 3]]
    assert packed.bounds == [0, 3, 4, 6]
    assert packed.starts.tolist() == [0, 3, 4, 6]
    assert packed.starts.dtype == torch.int32
    assert packed.firsts.tolist() == [0, 3, 4]
    assert packed.longest == 3


def by_definition(query: Tensor, key: Tensor, value: Tensor, bounds: list[int], *, causal: bool) -> Tensor:
    """Full attention over the row with a mask of blocks."""
    owner = torch.from_numpy(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)))
    mask = owner[:, None] == owner[None, :]
    if causal:
        mask &= torch.ones_like(mask).tril()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3).transpose(1, 2)


def varlen_like(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    **options: Any,
) -> Tensor:
    """What FlashAttention's kernel for packed rows is documented to compute, on a CPU."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (max_q, max_k) == (int(cu_seq_q.diff().max()),) * 2
    assert options["scale"] == 0.3
    assert options["enable_gqa"] == (query.shape[1] != key.shape[1])
    assert options["window_size"] in ((-1, -1), (-1, 0))
    rows = [tensor.transpose(0, 1)[None] for tensor in (query, key, value)]
    causal = options["window_size"] == (-1, 0)
    return by_definition(rows[0], rows[1], rows[2], cu_seq_q.tolist(), causal=causal)[0]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_attention_stays_within_each_text(causal: bool, groups: int) -> None:
    torch.manual_seed(1)
    packed = pack([[0] * length for length in (5, 1, 9, 3)], CPU)
    query = torch.randn(1, 4, 18, 8)
    key, value = torch.randn(2, 1, 4 // groups, 18, 8)
    expected = by_definition(query, key, value, packed.bounds, causal=causal)
    by_text = attention_by_text(query, key, value, packed, causal=causal, scale=0.3)
    torch.testing.assert_close(by_text, expected)
    on_gpu = flash_attention(query, key, value, packed, causal=causal, scale=0.3, kernel=varlen_like)
    torch.testing.assert_close(on_gpu, expected)


def test_the_gpus_kernel_has_the_signature_that_is_called() -> None:
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    inspect.signature(varlen_attn).bind(*[None] * 7, scale=None, window_size=(-1, 0), enable_gqa=False)


def test_attention_of_another_kind_is_refused() -> None:
    row = torch.randn(1, 2, 4, 8)
    packed = pack([[0, 0], [0, 0]], CPU)
    with texts_apart(packed), pytest.raises(NotImplementedError, match="softcap"):
        packed_attention(None, row, row, row, None, softcap=30.0)
    with pytest.raises(RuntimeError, match="outside"):
        packed_attention(None, row, row, row, None)


def test_rows_of_other_threads_and_blocks_are_not_mixed_up() -> None:
    outer, inner = pack([[1]], CPU), pack([[2, 3]], CPU)
    with texts_apart(outer):
        with texts_apart(inner):
            assert packing._CURRENT.get() is inner
        assert packing._CURRENT.get() is outer
    assert packing._CURRENT.get() is None


def test_a_model_that_differs_or_raises_does_not_agree() -> None:
    one = torch.tensor([1.0, -2.0])

    def raises() -> Tensor:
        raise TypeError("no such argument")

    assert agrees(lambda: one + 1e-4, lambda: one, 1e-3)
    assert not agrees(lambda: one + 1e-2, lambda: one, 1e-3)
    assert not agrees(lambda: one[:1], lambda: one, 1e-3)
    assert not agrees(lambda: one * torch.nan, lambda: one, 1e-3)
    assert not agrees(raises, lambda: one, 1e-3)


@pytest.mark.parametrize(("kind", "packed"), [("llama", True), ("gpt2", True), ("gemma2", False)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_language_models_run_packed_where_their_attention_allows_it(
    tmp_path: Path, kind: str, packed: bool, precision: str
) -> None:
    folder = tiny_models.language_model(tmp_path / kind, kind)
    model = LanguageModel(str(folder), device=CPU, precision=precision, code="x")
    assert model.packed == packed
    if not packed:
        return
    chance = random.Random(5)
    windows = [
        Window([chance.randrange(18) for _ in range(length)], chance.randint(1, length - 1))
        for length in (2, 40, 3, 17, 64, 5)
    ]
    together = model.negative_log_likelihoods(windows)
    alone = torch.cat([model.negative_log_likelihoods([window]) for window in windows])
    torch.testing.assert_close(together, alone, rtol=1e-5 if precision == "float32" else 3e-2, atol=1e-4)
    use_packed_attention(model._model, on=False)
    model.packed = False
    padded = model.negative_log_likelihoods(windows)
    torch.testing.assert_close(together, padded, rtol=1e-5 if precision == "float32" else 3e-2, atol=1e-4)


def test_the_tokens_of_a_row_are_those_of_its_texts() -> None:
    chance = random.Random(2)
    texts = [[chance.randrange(99) for _ in range(chance.randint(1, 9))] for _ in range(40)]
    packed: Packed = pack(texts, CPU)
    cut = [
        packed.tokens[0, start:end].tolist()
        for start, end in zip(packed.bounds[:-1], packed.bounds[1:], strict=True)
    ]
    assert cut == texts


def test_what_all_texts_begin_with_is_in_the_row_once() -> None:
    packed = pack([[3, 4], [5]], CPU, beginning=[1, 2, 9])
    assert packed.tokens.tolist() == [[1, 2, 9, 3, 4, 5]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert (packed.begun, packed.bounds) == (3, [0, 3, 5, 6])
    with pytest.raises(NotImplementedError, match="each of the texts"):
        attention_by_text(*torch.randn(3, 1, 2, 6, 4), packed, causal=False, scale=None)


def test_a_common_beginning_changes_no_likelihood(tmp_path: Path) -> None:
    model = LanguageModel(
        str(tiny_models.language_model(tmp_path)), device=CPU, precision="float32", code="x"
    )
    chance = random.Random(7)
    opening = [chance.randrange(18) for _ in range(12)]
    windows = [
        Window([*opening, *(chance.randrange(18) for _ in range(length))], 13 + length // 3)
        for length in (2, 30, 7, 3, 19)
    ]
    assert model.shares_beginnings
    assert model._begun(windows) == 12
    alone = [float(model.negative_log_likelihoods([window])[0]) for window in windows]
    assert model.negative_log_likelihoods(windows).tolist() == pytest.approx(alone, rel=1e-5)
    # The token before the first that counts is each window's own; too few alike are not worth it.
    assert model._begun([Window(opening, 9), Window(opening, 12)]) == 8
    assert model._begun([Window(opening, 5), Window(opening, 12)]) == 0
