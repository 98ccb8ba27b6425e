"""Intervals by resampling cases (Efron 1979), for measures without a simple variance.

Cases are drawn with replacement, each with all of its labels: people who label the same case are not independent, so labels
are never drawn one by one. The margin is t · s, s being the standard deviation over the resamples and t the quantile of
Student's distribution with (cases − 1) degrees of freedom, and the interval is that of
:func:`relabel.agreement.measure.transformed`: for 20 or 30 cases it covers more often than the percentiles do
(see ``tests/unit/relabel/agreement/test_coverage.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.stats import t as student

from relabel.agreement.measure import CONFIDENCE, Interval, transformed
from relabel.agreement.ratings import Floats, Integers

RESAMPLES: Final = 1_000
_SEED: Final = 7
_CELLS: Final = 2_000_000
_MOST_UNDEFINED: Final = 0.05


def resampled_interval(
    value: float,
    units: Integers,
    statistic: Callable[[Floats], Floats],
    *,
    width: int = 1,
    low: float = -1.0,
    resamples: int = RESAMPLES,
    seed: int = _SEED,
) -> Interval | None:
    """The interval of ``value``, which ``statistic`` gives for ``units`` (cases of each pattern) and which lies between ``low``
    and 1.

    ``statistic`` maps weights (resamples × patterns) to one value a resample, NaN where it has none; ``width`` is the number
    of columns that it needs for each. ``None`` with fewer than two cases, or where more than 5 % of the resamples have no
    value. The same input gives the same interval.
    """
    cases = int(units.sum())
    if cases < 2:
        return None
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // max(len(units), width))
    found = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        found.append(statistic(_drawn(rng, units, cases, count)))
    values = np.concatenate(found)
    known = values[np.isfinite(values)]
    if len(known) < (1 - _MOST_UNDEFINED) * resamples:
        return None
    margin = float(student.ppf((1 + CONFIDENCE) / 2, cases - 1) * known.std(ddof=1))
    return transformed(value, margin, low=low)


def _drawn(rng: np.random.Generator, units: Integers, cases: int, count: int) -> Floats:
    """How often each pattern is in each of ``count`` resamples."""
    if len(units) * 2 < cases:
        return rng.multinomial(cases, units / cases, size=count).astype(np.float64)
    # Where nearly every case is a pattern of its own, drawing cases is quicker than a binomial for each.
    pattern = np.repeat(np.arange(len(units)), units)
    return np.stack(
        [
            np.bincount(pattern[rng.integers(0, cases, cases)], minlength=len(units)).astype(np.float64)
            for _ in range(count)
        ]
    )
