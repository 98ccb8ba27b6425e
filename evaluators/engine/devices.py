"""Where a model runs, and what its errors mean there."""

from __future__ import annotations

import torch


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the same work may succeed in smaller pieces."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def is_device_failure(error: BaseException) -> bool:
    """Whether the device itself broke: after such an error (an assertion or an illegal access in a kernel)
    every further call on it fails in this process, whatever the text."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
