"""Several questions at once: which answers still stand when all of them are counted.

* A family in which no false finding is wanted (guardrails, treatments against one control): :func:`holm`, or the
  level of each question, :func:`bonferroni_level`, where intervals must agree with the decisions.
* Many secondary metrics, where a share of false findings is acceptable: :func:`benjamini_hochberg` for p-values at
  one planned look, if they are independent or positively dependent; :func:`e_benjamini_hochberg` for e-values, under
  any dependence and when the looks, or which metric stops when, depend on the data.

Invariant: what has no p-value (``None``, NaN, or no number between 0 and 1) is no question: it stays NaN and does not
count against the others.

Sources: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6;
Benjamini & Hochberg 1995, "Controlling the false discovery rate", JRSS B 57; Wang & Ramdas 2022, "False discovery rate
control with e-values", JRSS B 84.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from experiments.statistics.e_process import p_from_log_e

Floats = NDArray[np.float64]


def bonferroni_level(alpha: float, p_values: Sequence[float | None]) -> float:
    """α over the number of p-values that there are; NaN when there are none.

    >>> bonferroni_level(0.05, [0.01, None, 0.2])
    0.025
    """
    count = sum(_is_p(p) for p in p_values)
    return alpha / count if count else math.nan


def holm(p_values: Sequence[float | None]) -> list[float]:
    """Adjusted p-values: at most α exactly where Holm's step-down test at familywise level α rejects.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, nan, 0.06]
    """
    return _adjusted(p_values, _step_down)


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float]:
    """q-values: at most α exactly where the step-up test at false discovery rate α rejects."""
    return _adjusted(p_values, lambda p: np.asarray(false_discovery_control(p), dtype=np.float64))


def e_benjamini_hochberg(log_e: Sequence[float | None]) -> list[float]:
    """q-values from ln E: at most α exactly where e-BH rejects, the k largest with E₍ₖ₎ ≥ m/(αk).

    That is Benjamini and Hochberg's step-up on 1/E, but unlike it valid under any dependence, and for E-values that
    were stopped by looking.
    """
    return benjamini_hochberg([None if value is None else p_from_log_e(value) for value in log_e])


def _adjusted(p_values: Sequence[float | None], adjust: Callable[[Floats], Floats]) -> list[float]:
    given = [p for p in p_values if _is_p(p)]
    adjusted = iter(adjust(np.array(given, dtype=np.float64)) if given else ())
    return [float(next(adjusted)) if _is_p(p) else math.nan for p in p_values]


def _is_p(p: float | None) -> bool:
    return p is not None and 0.0 <= p <= 1.0


def _step_down(p: Floats) -> Floats:
    """The largest of (m−j+1)·p₍ⱼ₎ up to one's own place, at most 1."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(stepped, 1.0)
    return found
