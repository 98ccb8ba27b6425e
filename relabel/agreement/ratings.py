"""What several people said of the same cases, in the form that the measures are computed from.

Measures of many raters only need to know how often each answer was given to a case, so cases that were answered alike are
one *pattern* with a count: 100,000 cases of three labels of five kinds are at most 35. Invariant: a case with fewer than
two answers is in no pattern; it is counted as ``dropped``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ratings:
    """``counts`` (patterns × categories): how often each answer is in a pattern. ``units``: cases of each pattern; ``sizes``:
    answers of one case of it. ``categories``: the answers, in their order where they have one.
    """

    counts: sparse.csr_array
    units: Integers
    sizes: Floats
    categories: tuple[Hashable, ...]
    dropped: int

    @classmethod
    def of(
        cls, answers: Iterable[Sequence[Hashable]], *, categories: Sequence[Hashable] | None = None
    ) -> Self:
        """From the answers to each case, in any order. Without ``categories``: those that there are, sorted where they
        can be. Raises ``KeyError`` for an answer that is none of them.
        """
        given = list(answers)
        if categories is None:
            categories = _sorted({answer for case in given for answer in case})
        code = {category: place for place, category in enumerate(categories)}
        units = np.repeat(np.arange(len(given)), [len(case) for case in given])
        codes = np.array([code[answer] for case in given for answer in case], dtype=np.int64)
        return cls.of_codes(units, codes, categories, cases=len(given))

    @classmethod
    def of_codes(
        cls, units: Integers, codes: Integers, categories: Sequence[Hashable], *, cases: int | None = None
    ) -> Self:
        """From one row an answer: the case's number and the place of the answer in ``categories``."""
        order = np.lexsort((codes, units))
        _, starts, sizes = np.unique(units[order], return_index=True, return_counts=True)
        total = len(sizes) if cases is None else cases
        kept = sizes >= 2
        starts, sizes = starts[kept], sizes[kept]
        width = int(sizes.max(initial=0))
        table = np.full((len(sizes), width), -1, dtype=np.int64)
        filled = np.arange(width) < sizes[:, None]
        table[filled] = codes[order][(starts[:, None] + np.arange(width))[filled]]
        patterns, times = (
            np.unique(table, axis=0, return_counts=True) if len(table) else (table, np.zeros(0, np.int64))
        )
        row, column = np.nonzero(patterns >= 0)
        answers = patterns[row, column]
        counts = sparse.coo_array(
            (np.ones(len(row)), (row, answers)), shape=(len(patterns), max(1, len(categories)))
        ).tocsr()
        counts.sum_duplicates()
        return cls(
            counts=counts,
            units=times.astype(np.int64),
            sizes=(patterns >= 0).sum(axis=1).astype(np.float64),
            categories=tuple(categories),
            dropped=total - len(sizes),
        )

    @property
    def cases(self) -> int:
        """Cases with at least two answers."""
        return int(self.units.sum())

    @property
    def totals(self) -> Floats:
        """How often each category was given, over the cases with at least two answers."""
        return np.asarray(self.units @ self.counts, dtype=np.float64)

    @property
    def squares(self) -> Floats:
        """Of each pattern, the sum of the squares of its counts."""
        return np.asarray(self.counts.multiply(self.counts).sum(axis=1), dtype=np.float64)

    @property
    def without_disagreement(self) -> bool:
        """Whether all answers to every case are the same."""
        return bool(np.all(self.squares == self.sizes**2))


def _sorted(answers: set[Hashable]) -> list[Hashable]:
    try:
        return sorted(answers)  # type: ignore[type-var]
    except TypeError:
        return sorted(answers, key=repr)
