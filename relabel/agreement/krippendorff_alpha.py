"""Krippendorff's alpha: any number of people, missing labels, and scales that are more than names.

α = 1 − D_o / D_e with D_o = (1/n) Σ_u Σ_c,k n_uc n_uk δ²(c, k) / (m_u − 1) and D_e = Σ_c,k n_c n_k δ²(c, k) / (n (n − 1)), over
the cases u with m_u ≥ 2 answers (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"). δ² is 1 for different
names; (c − k)² on an interval scale; on an ordinal one (Σ_g=c..k n_g − (n_c + n_k)/2)², which is the squared distance of the
categories' mean ranks, so that both come down to sums and sums of squares. Interval: cases are resampled
(:mod:`relabel.agreement.bootstrap`), not the pairs of labels that Krippendorff's own algorithm draws (2006), since pairs of
one case are not independent and that gives intervals which are too narrow (Zapf et al. 2016).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from relabel.agreement.bootstrap import RESAMPLES, resampled_interval
from relabel.agreement.measure import Measure, undetermined
from relabel.agreement.ratings import Floats, Ratings

Level: TypeAlias = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(ratings: Ratings, level: Level = "nominal", *, resamples: int = RESAMPLES) -> Measure:
    """Alpha; ``ordinal`` takes the order of the categories, ``interval`` their values as numbers. ``resamples`` 0: without an
    interval.

    Without a value when no case has two answers, or all answers are the same; without an interval when nobody ever
    disagreed on a case.
    """
    cases = ratings.cases
    if cases == 0:
        return undetermined(0, "no case has two labels")
    if np.count_nonzero(ratings.totals) < 2:
        return undetermined(cases, "everybody gave one and the same answer to all cases")

    if level == "nominal":
        within = (ratings.sizes**2 - ratings.squares) / (ratings.sizes - 1)

        def statistic(weights: Floats) -> Floats:
            return _nominal(weights, ratings, within)
    else:
        numbers = (
            np.array([float(str(category)) for category in ratings.categories])
            if level == "interval"
            else None
        )

        def statistic(weights: Floats) -> Floats:
            return _ranked(weights, ratings, numbers)

    value = float(statistic(ratings.units[None, :].astype(np.float64))[0])
    if ratings.without_disagreement:
        return Measure(value, None, cases, "nobody disagreed, which does not say how sure this is")
    interval = (
        resampled_interval(
            value, ratings.units, statistic, width=len(ratings.categories), resamples=resamples
        )
        if resamples
        else None
    )
    reason = None if interval or not resamples else "the labels vary too little to say how sure this is"
    return Measure(value, interval, cases, reason)


def _nominal(weights: Floats, ratings: Ratings, within: Floats) -> Floats:
    totals = np.asarray(weights @ ratings.counts)
    labels = totals.sum(axis=1)
    return alpha_of(weights @ within, labels**2 - np.sum(totals**2, axis=1), labels)


def _ranked(weights: Floats, ratings: Ratings, numbers: Floats | None) -> Floats:
    totals = np.asarray(weights @ ratings.counts)
    labels = totals.sum(axis=1)
    ranks = np.cumsum(totals, axis=1) - totals / 2
    places = ranks if numbers is None else np.broadcast_to(numbers, totals.shape)
    # Around the middle, so that little is lost where large numbers are subtracted.
    places = places - np.sum(totals * places, axis=1, keepdims=True) / labels[:, None]
    sums = np.asarray(ratings.counts @ places.T)
    squares = np.asarray(ratings.counts @ (places**2).T)
    within = 2 * (ratings.sizes[:, None] * squares - sums**2) / (ratings.sizes[:, None] - 1)
    expected = 2 * (labels * np.sum(totals * places**2, axis=1) - np.sum(totals * places, axis=1) ** 2)
    return alpha_of(np.sum(weights * within.T, axis=1), expected, labels)


def alpha_of(within: Floats, between: Floats, labels: Floats) -> Floats:
    """From n · D_o, n (n − 1) · D_e and n."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between > 0, 1 - (labels - 1) * within / between, np.nan)
