from __future__ import annotations

import pytest
import torch

from evaluators.engine.devices import choose_device


def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu0", "cuda:77"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        choose_device(name)
