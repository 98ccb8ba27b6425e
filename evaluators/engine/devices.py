"""Where a model runs, with how many threads, and what its errors mean there."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import torch

_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")


def choose_device(name: str | None) -> torch.device:
    """The named device, or the first GPU where there is one, else the CPU. ``ValueError`` when there is no
    such device."""
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is not a device; write cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"there is no device {name}: this machine has {torch.cuda.device_count()} GPUs that torch can use."
        )
    return torch.device("cuda:0") if device.type == "cuda" and device.index is None else device


def worker_devices(wanted: str | None) -> list[str]:
    """The devices to run one worker process on each.

    ``None`` or ``cuda``: every GPU that torch can use (``CUDA_VISIBLE_DEVICES`` chooses among them);
    ``None`` where there is no GPU: the CPU, which one process uses whole. Else the devices named, separated
    by commas, each once. ``ValueError`` when there is no such device.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if wanted is None:
        return gpus or ["cpu"]
    if wanted.strip() == "cuda" and gpus:
        return gpus
    named = [str(choose_device(name.strip())) for name in wanted.split(",")]
    return list(dict.fromkeys(named))


def use_all_cores() -> int:
    """Lets torch compute with no more threads than this process may use cores, and returns how many. A smaller number
    that was set before (``OMP_NUM_THREADS``) stands.

    More threads than cores wait for one another at the end of every layer, which costs far more than a
    missing one; so a container's share counts, which torch by itself does not see.
    """
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores(_CGROUP_LIMIT)))
    return torch.get_num_threads()


def usable_cores(cgroup_limit: Path) -> int:
    """Cores that this process may use: those it is bound to, or the share its control group leaves it
    (``cpu.max``), if that is less."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup_limit.read_text(encoding="ascii").split()
        share = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no control group, or "max": no limit
        return bound
    return max(1, min(bound, share))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the same work may succeed in smaller pieces."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def is_device_failure(error: BaseException) -> bool:
    """Whether the device itself broke: after such an error (an assertion or an illegal access in a kernel)
    every further call on it fails in this process, whatever the text."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
