"""Exact evidence in counts of events, valid at every look and for every number of events.

Where each unit has one record, an event (a failure, say) falls to the treatment with probability θ = πp₁/(πp₁ +
(1−π)p₀), with π the treatment's share of the two arms' units by the *logged* assignment probabilities and p the
arms' rates. So θ = π exactly when the rates are equal, and ρ = p₁/p₀ = θ(1−π)/(π(1−θ)). Mixing the likelihood
ratio over a Beta law of θ gives a martingale that starts at 1, and by Ville's inequality it ever reaches 1/α with
probability at most α.

* Two-sided, k₁ and k₀ events, Beta(a₁, a₀) with a = C(π, 1−π): E = B(a₁+k₁, a₀+k₀)/B(a₁, a₀)/(π^k₁(1−π)^k₀).
* One-sided, the Beta law truncated to θ > π: E·P(Beta(a₁+k₁, a₀+k₀) > π)/P(Beta(a₁, a₀) > π). It is a
  supermartingale under every θ ≤ π: with θ′ > π the expected ratio of one event, θθ′/π + (1−θ)(1−θ′)/(1−π), grows
  with θ and is 1 at θ = π.

The same holds when units arrive in blocks of fixed composition π, looked at after whole blocks: a block's expected
ratio is (1 + p(θ′/π − 1))^(πN)·(1 + p((1−θ′)/(1−π) − 1))^((1−π)N) ≤ exp(0), from 1 + x ≤ eˣ (as for Turner, Ly &
Grünwald 2024, "Generic E-variables for exact sequential k-sample tests").

Invariant: nothing here is asymptotic, so a single event counts for what it is; but units with several records, whose
events come together, need :mod:`experiments.statistics.one_sided` or
:mod:`experiments.statistics.sequential`.

Source: Lindon & Malek 2022, "Anytime-valid inference for multinomial count data" (arXiv 2011.03567); the
truncated mixture is the one-sided beta-binomial of Howard, Ramdas, McAuliffe & Sekhon 2021, Annals of Statistics 49(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincc, betaln, expit, gammaln, log_expit, logit

Floats = NDArray[np.float64]
Alternative = Literal["greater", "less"]

# See default_concentration.
_BELIEF = 2.0

# Below this a tail of the Beta law is summed as a logarithm; floats end at 1e-308.
_SMALLEST_TAIL = 1e-200

# Outside these the Beta law is too lopsided for floats, and no test would have any power.
_SHARES = (1e-6, 1.0 - 1e-6)
_CONCENTRATIONS = (0.01, 1e6)

# Rate ratios are looked for between exp(-700) and exp(700): beyond, they are 0 or infinite.
_FARTHEST = 700.0


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Events of both arms in one phase. ``share`` is the treatment's of the two arms' units, as logged."""

    treatment: int
    control: int
    share: float


@dataclass(frozen=True, slots=True)
class RateRatio:
    """The treatment's rate over the control's. ``estimate`` is NaN without events, the bounds when no one
    ratio fits all phases.
    """

    estimate: float
    low: float
    high: float


def p_from_log_e(log_e: float) -> float:
    """min(1, 1/E), by Markov's inequality; its running minimum is valid at any stopping time. NaN stays NaN.

    >>> round(p_from_log_e(3.0), 4)
    0.0498
    """
    return math.nan if math.isnan(log_e) else math.exp(-max(log_e, 0.0))


def default_concentration(share: float) -> float:
    """C = 2/(π(1−π)): the Beta law then spreads ln ρ by about 0.75 around 0, a factor of two, at every share.

    Simulated (40,000 runs, looks every 100 units of the treatment, E ≥ 20, one-sided): a 5 % canary of 1,000
    requests that doubles a rate of 2 % is found with probability 0.857 at 2, 0.849 at 1 and 0.850 at 5; at a share
    of 1 % with 0.876, 0.869 and 0.869; at 50 % with 0.519, 0.518 and 0.471. A constant C = 20 does worse at each
    of them: 0.851, 0.831 and 0.468.
    """
    return _BELIEF / (share * (1.0 - share))


def two_arm_log_e(
    strata: Sequence[EventCounts], *, ratio: float = 1.0, concentration: float | None = None
) -> float:
    """ln E against p₁/p₀ = ``ratio`` in both directions. Phases with units of their own are independent, so their
    log e-values add.

    No event is no evidence, ln 1 = 0; what is no count, or a share within 1e-6 of 0 or 1, gives NaN.
    ``concentration`` is C, from 0.01 to 1e6, by default :func:`default_concentration`.
    """
    if not _sound(strata, ratio, concentration):
        return math.nan
    return math.fsum(
        _two_sided(stratum, _share_at(stratum.share, ratio), concentration) for stratum in strata
    )


def one_sided_log_e(
    strata: Sequence[EventCounts],
    alternative: Alternative,
    *,
    ratio: float = 1.0,
    concentration: float | None = None,
) -> float:
    """ln E against p₁/p₀ ≤ ``ratio`` for the alternative "greater", against p₁/p₀ ≥ ``ratio`` for "less".

    Each phase has its own truncated mixture; their log e-values add. Degenerate input as in
    :func:`two_arm_log_e`.

    >>> round(one_sided_log_e([EventCounts(treatment=40, control=380, share=0.05)], "greater"), 2)
    6.05
    """
    if not _sound(strata, ratio, concentration):
        return math.nan
    total = []
    for stratum in strata:
        share = _share_at(stratum.share, ratio)
        more, fewer = stratum.treatment, stratum.control
        if alternative == "less":  # the same question about the other arm
            more, fewer, share = fewer, more, 1.0 - share
        total.append(_truncated(more, fewer, share, concentration))
    return math.fsum(total)


def rate_ratio(
    strata: Sequence[EventCounts], alpha: float, *, concentration: float | None = None
) -> RateRatio:
    """The ratios that the two-sided e-process with its law centred at ρ = 1 has not rejected at level ``alpha``,
    in the common scale of all phases; valid at every look, and without 1 exactly when ``two_arm_log_e`` rejects.

    −k₁·ln θ − k₀·ln(1−θ) is convex in ln ρ, so they are an interval whose ends are roots.
    """
    if not _sound(strata, 1.0, concentration) or not 0.0 < alpha < 1.0:
        return RateRatio(math.nan, math.nan, math.nan)
    gained = math.fsum(_gained(stratum, concentration) for stratum in strata) + math.log(alpha)
    treatment = sum(stratum.treatment for stratum in strata)
    control = sum(stratum.control for stratum in strata)
    k1 = np.array([stratum.treatment for stratum in strata], dtype=np.float64)
    k0 = np.array([stratum.control for stratum in strata], dtype=np.float64)
    centre = logit(np.array([stratum.share for stratum in strata]))

    def excess(log_ratio: float) -> float:
        """ln E against this ratio, less ln 1/α."""
        x = log_ratio + centre
        return gained - float(k1 @ log_expit(x) + k0 @ log_expit(-x))

    def surplus(log_ratio: float) -> float:
        """Events that the treatment would have at this ratio, less those that it has."""
        return float((k1 + k0) @ expit(log_ratio + centre)) - treatment

    if treatment == 0 and control == 0:
        return RateRatio(math.nan, 0.0, math.inf)
    if treatment == 0:
        return RateRatio(0.0, 0.0, math.exp(_root(excess, -_FARTHEST, _FARTHEST)))
    if control == 0:
        return RateRatio(math.inf, math.exp(_root(excess, -_FARTHEST, _FARTHEST)), math.inf)
    likeliest = _root(surplus, -_FARTHEST, _FARTHEST)
    if excess(likeliest) >= 0.0:
        return RateRatio(math.exp(likeliest), math.nan, math.nan)
    low, high = _root(excess, -_FARTHEST, likeliest), _root(excess, likeliest, _FARTHEST)
    return RateRatio(math.exp(likeliest), math.exp(low), math.exp(high))


def multinomial_log_e(counts: Sequence[int], probabilities: Sequence[float], concentration: float) -> float:
    """ln E = ln(B(a+k)/B(a)/Ππᵢ^kᵢ) with a = concentration·π: evidence against the counts coming from π.

    Reject at E ≥ 1/α, at any look. ``probabilities`` are positive and add up to 1.
    """
    k = np.asarray(counts, dtype=np.float64)
    pi = np.asarray(probabilities, dtype=np.float64)
    a = concentration * pi
    return float(_log_beta(a + k) - _log_beta(a) - np.sum(k * np.log(pi)))


def _log_beta(a: Floats) -> float:
    return float(np.sum(gammaln(a)) - gammaln(np.sum(a)))


def _sound(strata: Sequence[EventCounts], ratio: float, concentration: float | None) -> bool:
    """Whether these are counts of something, with shares and a concentration that can be calculated with."""
    counts = [k for stratum in strata for k in (stratum.treatment, stratum.control)]
    if not counts or not all(math.isfinite(k) and k >= 0 for k in counts) or not 0.0 < ratio < math.inf:
        return False
    if concentration is not None and not _CONCENTRATIONS[0] <= concentration <= _CONCENTRATIONS[1]:
        return False
    shares = [x for s in strata if 0.0 < s.share < 1.0 for x in (s.share, _share_at(s.share, ratio))]
    return len(shares) == len(counts) and all(_SHARES[0] <= x <= _SHARES[1] for x in shares)


def _share_at(share: float, ratio: float) -> float:
    """θ at this ratio of rates."""
    return share * ratio / (share * ratio + 1.0 - share)


def _gained(stratum: EventCounts, concentration: float | None) -> float:
    """ln(B(a+k)/B(a)), what the mixture says of the counts."""
    c = default_concentration(stratum.share) if concentration is None else concentration
    a1, a0 = c * stratum.share, c * (1.0 - stratum.share)
    return float(betaln(a1 + stratum.treatment, a0 + stratum.control) - betaln(a1, a0))


def _two_sided(stratum: EventCounts, share: float, concentration: float | None) -> float:
    mixed = _gained(EventCounts(stratum.treatment, stratum.control, share), concentration)
    return mixed - stratum.treatment * math.log(share) - stratum.control * math.log1p(-share)


def _truncated(more: int, fewer: int, share: float, concentration: float | None) -> float:
    """ln E with the Beta law on θ > share."""
    c = default_concentration(share) if concentration is None else concentration
    a1, a0 = c * share, c * (1.0 - share)
    before = math.log(float(betaincc(a1, a0, share)))
    after = float(betaincc(a1 + more, a0 + fewer, share))
    if after > _SMALLEST_TAIL:
        return _two_sided(EventCounts(more, fewer, share), share, concentration) + math.log(after) - before
    # P(Beta(a, b) > π) = π^a(1−π)^b/(b·B(a, b))·S, so what would underflow, and what would overflow, cancel.
    a, b = a1 + more, a0 + fewer
    start = a1 * math.log(share) + a0 * math.log1p(-share) - float(betaln(a1, a0)) - math.log(b)
    return start + math.log(_hypergeometric(a, b, 1.0 - share)) - before


def _hypergeometric(a: float, b: float, y: float) -> float:
    """₂F₁(a+b, 1; b+1; y) by its series (DLMF 8.17.8); for y well below b/(a+b), where its terms fall."""
    slowest = (a + b) * y / (b + 1.0)
    steps = np.arange(math.ceil(-40.0 / math.log(slowest)), dtype=np.float64)
    return 1.0 + float(np.sum(np.cumprod((a + b + steps) / (b + 1.0 + steps) * y)))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where ``function`` changes its sign; NaN when not between these."""
    if not function(low) * function(high) <= 0.0:
        return math.nan
    return float(brentq(function, low, high, xtol=1e-12))
