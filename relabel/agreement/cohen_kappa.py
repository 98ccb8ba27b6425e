"""Cohen's kappa of two people, corrected for the agreement that chance alone would give.

κ = (p_o − p_e) / (1 − p_e), p_o = Σ w_ij p_ij and p_e = Σ w_ij p_i. p_.j, with the weights w of agreement: 1 on the diagonal
(Cohen 1960, "A coefficient of agreement for nominal scales"), or 1 − |i − j| / (k − 1), or 1 − (i − j)² / (k − 1)² for
answers on a scale, where one step apart is less wrong than four (Cohen 1968). Interval: the large-sample variance of Fleiss,
Cohen and Everitt 1969, "Large sample standard errors of kappa and weighted kappa", eq. 13.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from relabel.agreement.measure import Interval, Measure, Z, undetermined
from relabel.agreement.ratings import Floats, Integers
from servelens.errors import Invalid

Weights: TypeAlias = Literal["linear", "quadratic"]
_NO_ERROR = 1e-9


def cohen_kappa(table: npt.ArrayLike, *, weights: Weights | None = None) -> Measure:
    """Kappa of ``table`` (k × k): in how many cases the first said i and the second j, in the order of the scale.

    Without a value when no case was labeled by both, or both said always the same one thing. Without an interval when they
    never disagreed: that is not certainty. Raises :class:`~servelens.errors.Invalid` when it is no such table.
    """
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or np.any(counts < 0):
        raise Invalid("it is no square table of counts", field="table", fix="Give k rows of k counts.")
    total = float(counts.sum())
    if total == 0:
        return undetermined(0, "no case has labels of both")
    cases = round(total)
    share = counts / total
    weight = _weights(len(counts), weights)
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    observed, by_chance = float((weight * share).sum()), float(rows @ weight @ columns)
    if 1 - by_chance < _NO_ERROR:
        return undetermined(cases, "both gave one and the same answer to all cases")
    value = (observed - by_chance) / (1 - by_chance)
    mean = np.add.outer(weight @ columns, rows @ weight)
    variance = float((share * (weight - mean * (1 - value)) ** 2).sum())
    variance -= (value - by_chance * (1 - value)) ** 2
    error = math.sqrt(max(0.0, variance)) / ((1 - by_chance) * math.sqrt(total))
    if error < _NO_ERROR:
        return Measure(value, None, cases, "the labels vary too little to say how sure this is")
    return Measure(value, Interval(max(-1.0, value - Z * error), min(1.0, value + Z * error)), cases)


def contingency(first: Integers, second: Integers, categories: int | None = None) -> Floats:
    """The table of two people's answers, as places on the scale; ``categories`` is its length where order matters,
    otherwise only answers that were given have a row.
    """
    if categories is None:
        names, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        first, second, categories = places[: len(first)], places[len(first) :], max(1, len(names))
    cells = np.bincount(first * categories + second, minlength=categories * categories)
    return cells.reshape(categories, categories).astype(np.float64)


def _weights(size: int, kind: Weights | None) -> Floats:
    if kind is None:
        return np.eye(size)
    places = np.arange(size, dtype=np.float64)
    distance = np.abs(np.subtract.outer(places, places)) / max(1, size - 1)
    return 1 - (distance if kind == "linear" else distance**2)
