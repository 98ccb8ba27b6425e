from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from evaluators.engine.devices import choose_device, usable_cores, use_all_cores, worker_devices


def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["gpu0", "cuda:77"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        choose_device(name)


def test_workers_get_each_device_once() -> None:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    assert worker_devices(None) == (gpus or ["cpu"])
    assert worker_devices("cpu") == ["cpu"]
    assert worker_devices("cpu, cpu") == ["cpu"]
    with pytest.raises(ValueError, match="cuda:77"):
        worker_devices("cpu,cuda:77")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="cuda"):
        worker_devices("cuda")


def test_a_containers_share_of_the_cores_counts(tmp_path: Path) -> None:
    bound = len(os.sched_getaffinity(0))
    limit = tmp_path / "cpu.max"
    assert usable_cores(limit) == bound
    limit.write_text("max 100000\n")
    assert usable_cores(limit) == bound
    limit.write_text("100000 100000\n")
    assert usable_cores(limit) == 1
    limit.write_text("20000 100000\n")
    assert usable_cores(limit) == 1
    limit.write_text("99000000 100000\n")
    assert usable_cores(limit) == bound


def test_threads_are_at_most_the_cores_and_fewer_where_that_was_said_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1_000)
        assert use_all_cores() == torch.get_num_threads() <= len(os.sched_getaffinity(0))
        torch.set_num_threads(1)
        assert use_all_cores() == 1
    finally:
        torch.set_num_threads(before)
