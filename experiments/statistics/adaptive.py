"""Estimates that hold when earlier outcomes decided who got what.

Under a bandit an arm that was unlucky early is hardly looked at again, so its bad luck stays in its mean: arm
means are biased. What is not: scores that weigh each unit by the probability with which it was assigned. For
unit t with propensity e_t(a) and a guess m_t(a) made before it came,

    Γ_t(a) = m_t(a) + 1{A_t = a}·(Y_t − m_t(a))/e_t(a)

has mean μ(a) whatever happened before (augmented inverse-propensity weighting). Estimates are weighted means of
scores, Q̂ = Σh_tΓ_t/Σh_t with V̂ = Σh_t²(Γ_t−Q̂)²/(Σh_t)² (Hadad, Hirshberg, Zhan, Wager & Athey 2021, "Confidence
intervals for policy evaluation in adaptive experiments", PNAS 118(15)):

* ``stabilised``: h_t = √(e_t/T), the variance-stabilising weights with constant allocation. A score's variance is
  about σ²/e_t, so every unit adds the same to the variance and Q̂ is asymptotically normal however the
  propensities went. As Σh_t is random, a bias remains (about a tenth of the standard error in small samples, and
  vanishing beside it): for intervals, tests and posteriors.
* ``even``: h_t = 1, unbiased at any size, but with a large and uneven variance where an arm got little: for an
  estimate that has to be right on average.

A difference is estimated from the units' differences of scores, with one set of weights for both arms,
h_t = √(e_t(1)·e_t(0)/(e_t(1)+e_t(0))) (which makes their variance constant as well): its variance so contains the
covariance of the two arms' scores, and as only units of the same phase are compared, what changes over time for
all arms alike cancels. It is not the difference of two arm estimates, whose weights differ.

Propensities are constant within a phase, so each phase is summed up by its arms' moments. The guess is the arm's
mean over earlier phases. Where these have too few units, it is the mean in the phase itself, and the units that
were in the arm stand in for those expected: given how many they are, that is the ordinary arm mean and, as
nothing within a phase depends on its outcomes, unbiased. One phase alone thus gives the ordinary difference of
means and Welch's standard error. Clustered units count by their linearised values (s − m·n)/n̄, as in
:mod:`experiments.statistics.statistic`; a unit in several phases counts as a new one in each.

**At any time.** Σh_t(Γ_t − μ) is a martingale that behaves like a Brownian motion at time Σh_t²Var(Γ_t), so the
normal mixture is valid for it at every look, as an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha,
Kennedy & Ramdas 2024, Annals of Statistics 52(6); for bandits Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro
2022, "Anytime-valid off-policy inference for contextual bandits", arXiv 2210.10768). With stabilised weights that
time runs with the units, not with 1/se², so r must too: ``always_valid(value, se, degrees, r, alpha)`` with
r = ``planned_r(units / 4, planned_units, alpha)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from experiments.statistics.statistic import Moments

Weighting = Literal["stabilised", "even"]

# A guess from fewer earlier units is so rough that it adds more variance than it takes away.
UNITS_TO_GUESS = 5
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class Observed:
    """An arm in one phase: its measured units, and the probability with which each unit of the phase got it."""

    moments: Moments
    propensity: float


@dataclass(frozen=True, slots=True)
class Phase:
    """``units`` are the measured units of all arms in the phase; phases are given in their order."""

    units: int
    arms: Mapping[str, Observed]


@dataclass(frozen=True, slots=True)
class Estimate:
    """``value`` on the metric's scale with its standard error.

    ``degrees`` are Satterthwaite's: with few units, value ± Student's quantile × se covers where the normal one
    falls a little short. ``units`` are the units of all arms in the phases that count. NaN: cannot be said.
    """

    value: float
    se: float
    degrees: float
    units: int


@dataclass(frozen=True, slots=True)
class _Scores:
    """One arm's scores in one phase: ``guess`` for each unit, to which the arm's units add in sum ``shift``.

    ``square`` is the sum of the squares of what they add.
    """

    guess: float
    shift: float
    square: float
    degrees: float


@dataclass(frozen=True, slots=True)
class _Term:
    """The scores of ``units`` units of a phase, or differences of scores, with their common weight h."""

    units: int
    weight: float
    guess: float
    shift: float
    parts: tuple[_Scores, ...]

    def square(self, centre: float) -> float:
        """Σ(Γ − centre)²."""
        gap = self.guess - centre
        return self.units * gap * gap + 2.0 * gap * self.shift + sum(part.square for part in self.parts)


_UNKNOWN = _Scores(math.nan, math.nan, math.nan, math.nan)


def arm_estimate(phases: Sequence[Phase], arm: str, weighting: Weighting = "stabilised") -> Estimate:
    """The arm's value on the metric's scale. Phases in which nobody could get it do not count."""
    terms = []
    for phase, scores in zip(phases, _scores(phases, arm), strict=True):
        if scores is not None:
            weight = math.sqrt(phase.arms[arm].propensity) if weighting == "stabilised" else 1.0
            terms.append(_Term(phase.units, weight, scores.guess, scores.shift, (scores,)))
    return _combined(terms)


def contrast(
    phases: Sequence[Phase], treatment: str, control: str, weighting: Weighting = "stabilised"
) -> Estimate:
    """Treatment minus control, from the phases in which both were possible.

    >>> rates = {"a": Observed(Moments(50, 50, 5, 50, 5, 5), 0.5), "b": Observed(Moments(50, 50, 9, 50, 9, 9), 0.5)}
    >>> round(contrast([Phase(100, rates)], "b", "a").value, 3)
    0.08
    """
    terms = []
    pairs = zip(phases, _scores(phases, treatment), _scores(phases, control), strict=True)
    for phase, ours, theirs in pairs:
        if ours is not None and theirs is not None:
            first, second = phase.arms[treatment].propensity, phase.arms[control].propensity
            weight = math.sqrt(first * second / (first + second)) if weighting == "stabilised" else 1.0
            guess, shift = ours.guess - theirs.guess, ours.shift - theirs.shift
            # No unit is in both arms, so the squares of a difference are those of the two.
            terms.append(_Term(phase.units, weight, guess, shift, (ours, theirs)))
    return _combined(terms)


def _scores(phases: Sequence[Phase], arm: str) -> list[_Scores | None]:
    """The arm's scores phase by phase; ``None`` where it could not be assigned or says nothing."""
    found: list[_Scores | None] = []
    earlier, finite = Moments(), True
    for phase in phases:
        observed = phase.arms.get(arm)
        if observed is None or not 0 < observed.propensity <= 1:
            found.append(None)
            continue
        finite = finite and all(map(math.isfinite, astuple(observed.moments)))
        if not finite:
            found.append(_UNKNOWN)
            continue
        if earlier.units >= UNITS_TO_GUESS and earlier.records > 0:
            found.append(_guessed(observed, earlier.mean))
        else:
            found.append(_own(phase, observed.moments))
        earlier = earlier + observed.moments
    return found


def _guessed(observed: Observed, guess: float) -> _Scores:
    moments, propensity = observed.moments, observed.propensity
    if moments.records <= 0:
        return _Scores(guess, 0.0, 0.0, math.inf)
    size = moments.records / moments.units
    return _Scores(
        guess,
        (moments.total - guess * moments.records) / size / propensity,
        moments.residual_square(guess) / (size * propensity) / (size * propensity),
        float(moments.units),
    )


def _own(phase: Phase, moments: Moments) -> _Scores | None:
    if moments.units < _FEWEST or moments.records <= 0:
        return None
    return _Scores(moments.mean, 0.0, moments.variance_of_mean() * phase.units**2, float(moments.units - 1))


def _combined(terms: Sequence[_Term]) -> Estimate:
    units = sum(term.units for term in terms)
    total = sum(term.weight * term.units for term in terms)
    if not total > 0:
        return Estimate(math.nan, math.nan, math.nan, units)
    value = sum(term.weight * (term.units * term.guess + term.shift) for term in terms) / total
    square = sum(term.weight * term.weight * term.square(value) for term in terms)
    parts = [(term.weight * term.weight * part.square, part.degrees) for term in terms for part in term.parts]
    below = sum(part * part / degrees for part, degrees in parts)
    if not (math.isfinite(square) and square > 0 and below > 0):
        return Estimate(value, math.nan, math.nan, units)
    spread = sum(part for part, _ in parts)
    return Estimate(value, math.sqrt(square) / total, spread * spread / below, units)
