"""Fleiss' kappa of any number of people, who need not be the same for every case.

κ = (P̄ − P_e) / (1 − P_e): P̄ is :mod:`relabel.agreement.raw`, P_e = Σ_c π_c², π_c the share of c among the answers (Fleiss
1971, "Measuring nominal scale agreement among many raters"). Cases may have different numbers of answers, from two on:
every case then counts the same, in P̄ and in π_c, which is the mean over cases of c's share in the case (Gwet 2014,
"Handbook of inter-rater reliability", 4th ed., ch. 2.6); with equal numbers that is Fleiss' own. Interval: Gwet's variance,
which linearises κ over the cases, with Student's quantile for (cases − 1), through Fisher's z. It holds also where people do
agree, which Fleiss' 1971 variance, made to test for no agreement, does not.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from relabel.agreement.measure import CONFIDENCE, Measure, transformed, undetermined
from relabel.agreement.ratings import Ratings

_NO_ERROR = 1e-9


def fleiss_kappa(ratings: Ratings) -> Measure:
    """Kappa; without a value when no case has two answers, or all answers are the same; without an interval when nobody
    ever disagreed on a case, or there is one case only.
    """
    cases = ratings.cases
    if cases == 0:
        return undetermined(0, "no case has two labels")
    sizes = ratings.sizes
    weights = ratings.units / cases
    agreed = (ratings.squares - sizes) / (sizes * (sizes - 1))
    shares = (weights / sizes) @ ratings.counts
    by_chance = float(np.sum(np.asarray(shares) ** 2))
    if 1 - by_chance < _NO_ERROR:
        return undetermined(cases, "everybody gave one and the same answer to all cases")
    observed = float(weights @ agreed)
    value = (observed - by_chance) / (1 - by_chance)
    if ratings.without_disagreement:
        return Measure(value, None, cases, "nobody disagreed, which does not say how sure this is")
    if cases < 2:
        return Measure(value, None, cases, "one case does not say how sure this is")
    expected = np.asarray(ratings.counts @ shares) / sizes
    influence = (agreed - by_chance) - 2 * (1 - value) * (expected - by_chance)
    influence = influence / (1 - by_chance)
    variance = float(ratings.units @ (influence - value) ** 2) / (cases * (cases - 1))
    margin = float(student.ppf((1 + CONFIDENCE) / 2, cases - 1)) * math.sqrt(variance)
    interval = transformed(value, margin)
    return Measure(
        value, interval, cases, None if interval else "the labels vary too little to say how sure this is"
    )
