"""What one look leaves for the next: constants frozen for the experiment's life, and the smallest p-values.

Invariant: a look reads and writes nothing else, so a look with the same tables, definition and memory gives the same
report. That is what a replay rests on (:mod:`experiments.replay`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from experiments.store import ExperimentStore, RunningP, SeenLook


class Memory(Protocol):
    """Keys are a metric's name (or one made of it, such as ``guardrail:error_rate``) and a treatment's name."""

    def kappa(self, metric: str, treatment: str) -> float | None:
        """The frozen κ (or another constant kept the same way), or ``None``."""

    def freeze_kappa(self, metric: str, treatment: str, kappa: float) -> float:
        """Keep a constant unless there is one already; gives the one that counts."""

    def running_p(self, metric: str, treatment: str) -> RunningP | None:
        """The smallest p-value of all looks so far."""

    def lower_p(self, metric: str, treatment: str, p_value: float, difference: float) -> RunningP:
        """Take a p-value into the running minimum; gives the minimum."""

    def weights(self) -> dict[int, dict[str, float]]:
        """Each phase's weights in percent, by variant."""

    def looks(self, metric: str, treatment: str) -> list[SeenLook]:
        """The looks of a committed horizon so far, in order."""

    def add_look(self, metric: str, treatment: str, look: SeenLook) -> list[SeenLook]:
        """Keep a look unless that number was taken already; gives all of them."""


class StoredMemory:
    """The memory of experiment ``name`` in the database."""

    def __init__(self, store: ExperimentStore, name: str) -> None:
        self._store = store
        self._name = name

    def kappa(self, metric: str, treatment: str) -> float | None:
        return self._store.kappa(self._name, metric, treatment)

    def freeze_kappa(self, metric: str, treatment: str, kappa: float) -> float:
        return self._store.freeze_kappa(self._name, metric, treatment, kappa)

    def running_p(self, metric: str, treatment: str) -> RunningP | None:
        return self._store.running_p(self._name, metric, treatment)

    def lower_p(self, metric: str, treatment: str, p_value: float, difference: float) -> RunningP:
        return self._store.lower_p(self._name, metric, treatment, p_value, difference)

    def weights(self) -> dict[int, dict[str, float]]:
        return self._store.weights(self._name)

    def looks(self, metric: str, treatment: str) -> list[SeenLook]:
        return self._store.looks(self._name, metric, treatment)

    def add_look(self, metric: str, treatment: str, look: SeenLook) -> list[SeenLook]:
        return self._store.add_look(self._name, metric, treatment, look)


@dataclass(slots=True)
class TransientMemory:
    """A memory that lives as long as the object: for simulations, and what a replay is given."""

    kappas: dict[tuple[str, str], float] = field(default_factory=dict)
    running: dict[tuple[str, str], RunningP] = field(default_factory=dict)
    phase_weights: dict[int, dict[str, float]] = field(default_factory=dict)
    seen: dict[tuple[str, str], list[SeenLook]] = field(default_factory=dict)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def kappa(self, metric: str, treatment: str) -> float | None:
        return self.kappas.get((metric, treatment))

    def freeze_kappa(self, metric: str, treatment: str, kappa: float) -> float:
        return self.kappas.setdefault((metric, treatment), kappa)

    def running_p(self, metric: str, treatment: str) -> RunningP | None:
        return self.running.get((metric, treatment))

    def lower_p(self, metric: str, treatment: str, p_value: float, difference: float) -> RunningP:
        known = self.running.get((metric, treatment))
        if known is None or p_value < known.p_value:
            known = self.running[metric, treatment] = RunningP(p_value, difference, self.now())
        return known

    def weights(self) -> dict[int, dict[str, float]]:
        return {phase: dict(weights) for phase, weights in self.phase_weights.items()}

    def looks(self, metric: str, treatment: str) -> list[SeenLook]:
        return list(self.seen.get((metric, treatment), ()))

    def add_look(self, metric: str, treatment: str, look: SeenLook) -> list[SeenLook]:
        known = self.seen.setdefault((metric, treatment), [])
        if all(one.look != look.look for one in known):
            known.append(look)
        return list(known)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for the report; :func:`memory_from_dict` reads it back."""
        return {
            "kappas": [[*key, value] for key, value in sorted(self.kappas.items())],
            "running": [
                [*key, one.p_value, one.difference, one.reached_at.isoformat()]
                for key, one in sorted(self.running.items())
            ],
            "weights": {str(phase): weights for phase, weights in sorted(self.phase_weights.items())},
            "looks": [
                [*key, one.look, one.fraction, one.z, one.boundary, one.seen_at.isoformat()]
                for key, looks in sorted(self.seen.items())
                for one in looks
            ],
        }


class RecordingMemory:
    """Passes everything on to another memory, and keeps what the look has used in ``used``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.used = TransientMemory()

    def kappa(self, metric: str, treatment: str) -> float | None:
        found = self._memory.kappa(metric, treatment)
        if found is not None:
            self.used.kappas[metric, treatment] = found
        return found

    def freeze_kappa(self, metric: str, treatment: str, kappa: float) -> float:
        frozen = self.used.kappas[metric, treatment] = self._memory.freeze_kappa(metric, treatment, kappa)
        return frozen

    def running_p(self, metric: str, treatment: str) -> RunningP | None:
        found = self._memory.running_p(metric, treatment)
        if found is not None:
            self.used.running[metric, treatment] = found
        return found

    def lower_p(self, metric: str, treatment: str, p_value: float, difference: float) -> RunningP:
        lowest = self.used.running[metric, treatment] = self._memory.lower_p(
            metric, treatment, p_value, difference
        )
        return lowest

    def weights(self) -> dict[int, dict[str, float]]:
        self.used.phase_weights = self._memory.weights()
        return self.used.weights()

    def looks(self, metric: str, treatment: str) -> list[SeenLook]:
        found = self._memory.looks(metric, treatment)
        self.used.seen[metric, treatment] = found
        return list(found)

    def add_look(self, metric: str, treatment: str, look: SeenLook) -> list[SeenLook]:
        found = self._memory.add_look(metric, treatment, look)
        self.used.seen[metric, treatment] = found
        return list(found)


def memory_from_dict(values: Mapping[str, Any]) -> TransientMemory:
    """The memory that :meth:`TransientMemory.to_dict` wrote."""
    memory = TransientMemory()
    for metric, treatment, value in values["kappas"]:
        memory.kappas[metric, treatment] = value
    for metric, treatment, p_value, difference, reached_at in values["running"]:
        memory.running[metric, treatment] = RunningP(p_value, difference, datetime.fromisoformat(reached_at))
    for phase, weights in values["weights"].items():
        memory.phase_weights[int(phase)] = dict(weights)
    for metric, treatment, look, fraction, z, boundary, seen_at in values["looks"]:
        memory.seen.setdefault((metric, treatment), []).append(
            # A boundary that is null in JSON was infinite: that look could not decide.
            SeenLook(
                look,
                fraction,
                z,
                math.inf if boundary is None else boundary,
                datetime.fromisoformat(seen_at),
            )
        )
    return memory
