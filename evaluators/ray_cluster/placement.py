"""Which cluster, and what of it: plain data, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servelens.errors import Invalid

_CLIENT: Final = "ray://"


@dataclass(frozen=True, slots=True)
class Actors:
    """How many actors, and what each of them has to itself: CPUs, and GPUs or a fraction of one."""

    actors: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.actors < 1:
            raise Invalid(f"{self.actors} actors score nothing.", field="ray.actors", fix="Use 1 or more.")
        for name in ("num_cpus", "num_gpus"):
            asked = getattr(self, name)
            if asked < 0 or (asked > 1 and asked != int(asked)):
                raise Invalid(
                    f"{asked:g} cannot be given out.",
                    field=f"ray.{name}",
                    fix="Use a whole number, or a fraction of one below 1.",
                )

    @property
    def devices(self) -> tuple[str, ...]:
        """One worker for each GPU of an actor that has several; else the evaluator chooses."""
        return tuple(f"cuda:{index}" for index in range(int(self.num_gpus))) if self.num_gpus > 1 else ()


@dataclass(frozen=True, slots=True)
class RayCluster:
    """``address``: of the cluster's head (``host:6379``), or ``auto`` for the one that this machine belongs to.

    ``models_dir``: the folder on the nodes, where it is not the scheduler's. ``read_on_nodes``: the nodes read the tables
    themselves; else the scheduler reads and sends the texts. ``placement_timeout_s``: how long an evaluation waits for
    the cluster to make room for its actors. ``runtime_env`` may hold secrets.
    """

    address: str = "auto"
    namespace: str = "servelens"
    models_dir: Path | None = None
    read_on_nodes: bool = True
    placement_timeout_s: float = 120.0
    runtime_env: Mapping[str, Any] = field(default_factory=dict, repr=False)
    actors: Actors = field(default_factory=Actors)

    def __post_init__(self) -> None:
        if self.address.startswith(_CLIENT):
            raise Invalid(
                "an address of Ray Client is not supported.",
                field="ray.address",
                fix="Let the scheduler's machine join the cluster "
                "(ray start --address=HEAD:6379 --num-cpus=0 --num-gpus=0) and use 'auto'.",
            )
        if self.address != "auto" and not self.address.rpartition(":")[2].isdigit():
            raise Invalid(
                f"'{self.address}' is no address.", field="ray.address", fix="Use 'auto' or 'host:6379'."
            )
