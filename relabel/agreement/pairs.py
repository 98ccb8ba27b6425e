"""How far every two people agree on one field: the pairs of labels within cases, grouped by who gave them.

Invariant: a pair of people is named in the order of the alphabet, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from relabel.agreement.answers import Column
from relabel.agreement.cohen_kappa import Weights, cohen_kappa, contingency
from relabel.agreement.measure import Measure, undetermined, wilson
from relabel.agreement.ratings import Integers


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two people on one field: over the ``cases`` that both labeled, how often they said the same, and Cohen's kappa,
    weighted as ``weights`` says.
    """

    field: str
    first: str
    second: str
    cases: int
    raw: Measure
    kappa: Measure
    weights: Weights | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def pair_agreements(column: Column, people: Sequence[str], *, min_cases: int) -> list[PairAgreement]:
    """All pairs with a case in common, those with most cases first; kappa from ``min_cases`` cases on."""
    found = []
    scale = len(column.categories) if column.asked.scale is not None else None
    weights: Weights | None = "quadratic" if scale is not None else None
    for first, second, said, answered in _pairs(column, people):
        cases = len(said)
        equal = int(np.count_nonzero(said == answered))
        kappa = (
            cohen_kappa(contingency(said, answered, scale), weights=weights)
            if cases >= min_cases
            else undetermined(cases, f"both labeled {cases} cases; {min_cases} are needed")
        )
        raw = Measure(equal / cases, wilson(equal / cases, cases), cases)
        found.append(
            PairAgreement(column.asked.name, people[first], people[second], cases, raw, kappa, weights)
        )
    return sorted(found, key=lambda each: (-each.cases, each.first, each.second))


def _pairs(column: Column, people: Sequence[str]) -> Iterator[tuple[int, int, Integers, Integers]]:
    """Two people, and their answers to the cases that both labeled."""
    cases, givers, codes = (
        np.frombuffer(each, dtype=np.int64) for each in (column.cases, column.people, column.codes)
    )
    place = np.empty(len(people), dtype=np.int64)
    place[sorted(range(len(people)), key=lambda number: people[number])] = np.arange(len(people))
    order = np.lexsort((place[givers], cases))
    cases, givers, codes = cases[order], givers[order], codes[order]
    firsts, seconds = [], []
    step = 1
    while True:
        # Labels of one case lie side by side: those a step apart are pairs, until no case has so many.
        same = np.flatnonzero(cases[:-step] == cases[step:]) if step < len(cases) else np.zeros(0, np.int64)
        if not len(same):
            break
        firsts.append(same)
        seconds.append(same + step)
        step += 1
    if not firsts:
        return
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    key = givers[first] * len(people) + givers[second]
    order = np.argsort(key, kind="stable")
    key, first, second = key[order], first[order], second[order]
    names, starts = np.unique(key, return_index=True)
    for name, start, end in zip(names, starts, [*starts[1:], len(key)], strict=True):
        one, other = divmod(int(name), len(people))
        yield one, other, codes[first[start:end]], codes[second[start:end]]
