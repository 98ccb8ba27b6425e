"""Which variant a unit gets: a pure hash, so that every proxy worker decides alike without asking anybody.

Two hashes of the unit decide: its place in the layer, which the layer's experiments divide among them, and
the variant, by the experiment's own salt. So nobody is in two experiments of a layer, on whichever endpoints
they run; because the hashes are independent, a growing share adds units and moves none; because the salts
differ, an experiment and its successor at the same places are independent of each other. Layers and salts as
in Tang, Agarwal, O'Brien & Meyer 2010, "Overlapping experiment infrastructure", §3. Cryptographic
hashes (RFC 7693: BLAKE2s for the place, BLAKE2b for the variant) are used because weaker ones were seen to
correlate between experiments (Kohavi, Longbotham, Sommerfield & Henne 2009, "Controlled experiments on the
web", §4.1.1). That they are two functions also keeps a salt that reads like a layer's name from mattering.

Light on purpose (standard library only): it runs in the proxy, once for each request.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b, blake2s
from typing import Final, Generic, NamedTuple, TypeVar

from experiments.experiment import Assignment, Experiment, Unit

__all__ = ["Allocation", "Assignment", "allocations", "assign", "bucket", "place"]

_RESOLUTION: Final = 53
_UNIT_INTERVAL = 2.0**-_RESOLUTION
_BEYOND_ALL: Final = b"\xff" * 9
_from_bytes = int.from_bytes

Answer = TypeVar("Answer")
_Hash = Callable[[], blake2b | blake2s]


def bucket(salt: str, unit: str) -> float:
    """A number in [0, 1), uniform over units and independent over salts; a multiple of 2⁻⁵³."""
    return _fraction(_salted(salt), unit)


def place(layer: str, unit: str) -> float:
    """The unit's place in the layer, in [0, 1): uniform, and independent of every :func:`bucket` and of its
    places in other layers.
    """
    return _fraction(_layered(layer), unit)


def assign(experiment: Experiment, unit: str) -> Assignment | None:
    """The unit's variant with its propensity (share times weight), or ``None``: the unit does not take
    part. What this says one by one, :class:`Allocation` says for an endpoint.
    """
    if not experiment.assigns:
        return None
    start, end = _places(experiment)
    if (start > 0.0 or end < 1.0) and not start <= place(experiment.layer, unit) < end:
        return None
    point = bucket(experiment.salt, unit)
    for upper, assignment in experiment.arms:
        if point < upper:
            return assignment
    return experiment.arms[-1][1]


@dataclass(frozen=True, slots=True)
class Allocation(Generic[Answer]):
    """The experiments that decide on one endpoint, made ready to decide in one go: by a unit of kind
    ``unit``, at most one of them.
    """

    experiments: tuple[Experiment, ...]
    """In the order of their places."""
    unit: Unit
    answer_for: Callable[[str], Answer | None] = field(repr=False, compare=False)
    """What stands for the unit's variant; ``None`` when no experiment has the unit."""


def allocations(
    experiments: Iterable[Experiment], answer: Callable[[Experiment, Assignment], Answer]
) -> dict[str, Allocation[Answer]]:
    """What decides on each endpoint, by its name; ``answer`` makes what is to be given for a variant.

    The experiments must be all that run, and such as :func:`~experiments.definition_rules.refuse_overlaps`
    lets pass. Their order does not matter, and those that do not assign are left out.

    >>> from experiments.experiment import Variant
    >>> tone = Experiment("tone", "chat", Variant("old", "a", 50), (Variant("new", "b", 50),), "success_rate")
    >>> chat = allocations([tone], lambda experiment, assignment: assignment.variant.name)["chat"]
    >>> chat.answer_for("user-1"), chat.answer_for("user-2")
    ('old', 'new')
    """
    ends: dict[str, float] = {}
    by_endpoint: dict[str, list[_Slice[Answer]]] = {}
    for experiment in sorted((each for each in experiments if each.assigns), key=_order):
        start, end = _places(experiment)
        # An overlap within the tolerance of refuse_overlaps belongs to the first, or somebody would be in two.
        start = max(start, ends.get(experiment.layer, 0.0))
        end = ends[experiment.layer] = max(start, end)
        by_endpoint.setdefault(experiment.endpoint, []).append(
            _Slice(experiment, start, end, _arms(experiment, answer))
        )
    return {name: _allocation(slices) for name, slices in by_endpoint.items()}


class _Arms(NamedTuple, Generic[Answer]):
    """An experiment's variants: the hash to go on from, the edges between them, and the answer for each."""

    salted: _Hash
    edges: list[bytes]
    answers: list[Answer]


class _Slice(NamedTuple, Generic[Answer]):
    """The places of an experiment in its layer, in [0, 1], and what it answers there."""

    experiment: Experiment
    start: float
    end: float
    arms: _Arms[Answer]


def _arms(experiment: Experiment, answer: Callable[[Experiment, Assignment], Answer]) -> _Arms[Answer]:
    uppers, assignments = zip(*experiment.arms, strict=True)
    return _Arms(
        _salted(experiment.salt).copy,
        [_edge(upper) for upper in uppers[:-1]],
        [answer(experiment, assignment) for assignment in assignments],
    )


def _allocation(slices: list[_Slice[Answer]]) -> Allocation[Answer]:
    experiments = tuple(each.experiment for each in slices)
    first = slices[0]
    if len(slices) == 1 and first.start <= 0.0 and first.end >= 1.0:
        whole = _whole(first.arms)
        return Allocation(experiments, first.experiment.unit, whole)
    edges: list[bytes] = []
    cells: list[_Arms[Answer] | None] = [None]  # before the first edge, and then after each
    for each in slices:
        edges += (_edge(each.start), _edge(each.end))
        cells += (each.arms, None)
    layered = _layered(first.experiment.layer).copy
    divided = _divided(layered, edges, cells)
    return Allocation(experiments, first.experiment.unit, divided)


# Closures, and digests that are compared as bytes (their order is that of the numbers): this is what keeps an
# experiment under a microsecond a request.
def _whole(arms: _Arms[Answer]) -> Callable[[str], Answer | None]:
    salted, edges, answers = arms

    def answer_for(unit: str) -> Answer | None:
        state = salted()
        state.update(unit.encode("utf-8", "surrogatepass"))
        return answers[bisect_right(edges, state.digest())]

    return answer_for


def _divided(
    layered: _Hash, places: list[bytes], cells: list[_Arms[Answer] | None]
) -> Callable[[str], Answer | None]:
    def answer_for(unit: str) -> Answer | None:
        data = unit.encode("utf-8", "surrogatepass")
        state = layered()
        state.update(data)
        arms = cells[bisect_right(places, state.digest())]
        if arms is None:
            return None
        salted, edges, answers = arms
        state = salted()
        state.update(data)
        return answers[bisect_right(edges, state.digest())]

    return answer_for


def _order(experiment: Experiment) -> tuple[float, float, str]:
    return (*_places(experiment), experiment.name)


def _places(experiment: Experiment) -> tuple[float, float]:
    return experiment.share_from / 100.0, (experiment.share_from + experiment.share) / 100.0


def _edge(fraction: float) -> bytes:
    """The lowest digest whose :func:`bucket` is not below ``fraction``: exactly where the floats divide."""
    if fraction >= 1.0:
        return _BEYOND_ALL
    return (math.ceil(math.ldexp(fraction, _RESOLUTION)) << 64 - _RESOLUTION).to_bytes(8, "big")


def _fraction(salted: blake2b | blake2s, unit: str) -> float:
    state = salted.copy()
    # Lone surrogates reach us from headers and JSON escapes; such a unit is as good as any other.
    state.update(unit.encode("utf-8", "surrogatepass"))
    # 53 bits, because 64 would round up to 1.0 for the highest hashes.
    return (_from_bytes(state.digest(), "big") >> 64 - _RESOLUTION) * _UNIT_INTERVAL


@lru_cache(maxsize=4096)
def _salted(salt: str) -> blake2b:
    """The hash after the salt: every unit of an experiment goes on from there."""
    return blake2b(f"{salt}\0".encode("utf-8", "surrogatepass"), digest_size=8)


@lru_cache(maxsize=4096)
def _layered(layer: str) -> blake2s:
    return blake2s(f"{layer}\0".encode("utf-8", "surrogatepass"), digest_size=8)
