"""Observed agreement: how often two people who label the same case say the same.

Of a case with m answers, n_c of them c: P = Σ_c n_c (n_c − 1) / (m (m − 1)), the share of its pairs of answers that are the
same; the measure is the mean of P over the cases (the P̄ of Fleiss 1971). Interval: Wilson's, with the effective number of
cases P̄ (1 − P̄) / (s² / n) in place of n (Dean and Pagano 2015, "Evaluating confidence interval methods for binomial
proportions in clustered surveys"); with two answers a case that is n itself. It does not correct for chance.
"""

from __future__ import annotations

import numpy as np

from relabel.agreement.measure import Measure, undetermined, wilson
from relabel.agreement.ratings import Ratings


def raw_agreement(ratings: Ratings) -> Measure:
    """The mean share of agreeing pairs; without a value when no case has two answers."""
    cases = ratings.cases
    if cases == 0:
        return undetermined(0, "no case has two labels")
    sizes = ratings.sizes
    shares = (ratings.squares - sizes) / (sizes * (sizes - 1))
    weights = ratings.units / cases
    value = float(weights @ shares)
    variance = float(weights @ (shares - value) ** 2)
    # A case cannot tell more than its pairs would if they were independent.
    most = float(ratings.units @ (sizes * (sizes - 1) / 2))
    effective = min(most, value * (1 - value) / variance * cases) if variance > 1e-12 else float(cases)
    if variance <= 1e-12 and 0 < value < 1:
        effective = most
    return Measure(float(np.clip(value, 0, 1)), wilson(float(np.clip(value, 0, 1)), effective), cases)
