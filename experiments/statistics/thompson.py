"""Top-two Thompson sampling: where a bandit sends its next units.

Let α_i be the posterior probability that arm i is the best. Plain Thompson sampling gives arm i the share α_i,
and so stops learning about the others as soon as one leads. Top-two sampling draws a leader, keeps it with
probability β, and otherwise draws again until another arm wins (Russo 2020, "Simple Bayesian Algorithms for
Best-Arm Identification", Operations Research 68(6); first 2016). The share that this gives an arm is

    ψ_i = α_i·(β + (1−β)·Σ_{j≠i} α_j/(1−α_j)),

computed here exactly, so that what is logged as an arm's propensity is the probability it was assigned with.

Invariant: the weights are a function of the posteriors alone (quadrature, nothing is drawn), each is at least the
floor, without which propensity-weighted estimates would have no bounded variance, and they add up to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc as beta_cdf
from scipy.special import betaincinv, betaln, ndtr, xlog1py, xlogy

from experiments.metrics import Direction
from servelens.errors import Invalid

Floats = NDArray[np.float64]

DEFAULT_FLOOR = 0.05
DEFAULT_BETA = 0.5

# The integrand is smooth between these quantiles of all arms (here as normal deviates), however different the
# arms' spreads are.
_DEVIATES = np.array([-8.5, -6.5, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.5])
# A spread that floats cannot tell from none beside the arms' means is widened to one that they can.
_FINEST = 1e-12
_LARGEST = 1e100
# Standard deviations at which a normal density is zero in floats.
_NOWHERE = 40.0
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(12)


@dataclass(frozen=True, slots=True)
class Normal:
    """An arm's mean on the metric's scale, from a propensity-weighted estimate and its standard error."""

    mean: float
    se: float

    @property
    def known(self) -> bool:
        """Whether there is data; a spread of zero is a spread that is not known yet."""
        return abs(self.mean) < _LARGEST and 0 < self.se < _LARGEST

    def density(self, x: Floats) -> Floats:
        """The posterior density."""
        steps = np.clip((x - self.mean) / self.se, -_NOWHERE, _NOWHERE)
        return np.asarray(np.exp(-0.5 * steps * steps) / (self.se * math.sqrt(2.0 * math.pi)))

    def below(self, x: Floats) -> Floats:
        """The posterior probability of less than x."""
        return np.asarray(ndtr((x - self.mean) / self.se))

    def breakpoints(self) -> Floats:
        """Values between which the density is smooth."""
        return np.asarray(self.mean + self.se * _DEVIATES)


@dataclass(frozen=True, slots=True)
class Beta:
    """An arm's rate from few units: Beta(a, b), with a−1 events and b−1 others under a uniform prior."""

    a: float
    b: float

    @property
    def known(self) -> bool:
        """Whether the parameters are those of a distribution."""
        return math.isfinite(self.a) and math.isfinite(self.b) and min(self.a, self.b) > 0

    def density(self, x: Floats) -> Floats:
        """The posterior density."""
        inside = np.clip(x, 0.0, 1.0)
        logarithm = xlogy(self.a - 1.0, inside) + xlog1py(self.b - 1.0, -inside) - betaln(self.a, self.b)
        return np.asarray(np.where((x > 0) & (x < 1), np.exp(logarithm), 0.0))

    def below(self, x: Floats) -> Floats:
        """The posterior probability of less than x."""
        return np.asarray(beta_cdf(self.a, self.b, np.clip(x, 0.0, 1.0)))

    def breakpoints(self) -> Floats:
        """Values between which the density is smooth."""
        upper = 1.0 - betaincinv(self.b, self.a, ndtr(-_DEVIATES[_DEVIATES > 0]))
        lower = betaincinv(self.a, self.b, ndtr(_DEVIATES[_DEVIATES <= 0]))
        return np.concatenate([[0.0], lower, upper, [1.0]])


Posterior = Normal | Beta


def probability_best(posteriors: Sequence[Posterior], better: Direction) -> list[float]:
    """The posterior probability of each arm to be the best, adding up to 1; arms are independent.

    P(i is best) = ∫ f_i Π_{j≠i} F_j, by Gauss-Legendre quadrature between the arms' quantiles. All arms are to be
    ``known``.

    >>> [round(p, 4) for p in probability_best([Normal(0.0, 0.3), Normal(0.5, 0.4)], "higher")]
    [0.1587, 0.8413]
    """
    if not posteriors:
        return []
    arms = _resolvable(posteriors)
    points, weights = _grid(arms)
    density = np.array([arm.density(points) for arm in arms])
    # The best is the one that all others are worse than: below it where more is better, and above where less is.
    worse = np.array([arm.below(points) for arm in arms]) if better == "higher" else _above(arms, points)
    raw = np.empty(len(arms))
    for index in range(len(arms)):
        others = np.delete(worse, index, axis=0)
        raw[index] = float(weights @ (density[index] * np.prod(others, axis=0)))
    total = math.fsum(raw)
    return [float(value) / total for value in raw]


def weights(
    posteriors: Sequence[Posterior | None],
    better: Direction,
    floor: float = DEFAULT_FLOOR,
    beta: float = DEFAULT_BETA,
) -> list[float]:
    """Each arm's share of the next units; at least ``floor``, together exactly 1, the same for the same input.

    Arms without data (``None``, or a posterior that is not known) get an even share, 1/K each; the others divide
    the rest by top-two Thompson sampling.

    Raises :class:`~servelens.errors.Invalid` for a floor that K arms cannot all have, for a β outside [0, 1], and
    for no arms.
    """
    count = len(posteriors)
    if not count:
        raise Invalid("there are no arms", field="posteriors", fix="Give one posterior for each variant.")
    if not (floor >= 0 and floor * count <= 1):
        raise Invalid(
            f"{count} variants cannot all have a share of {floor}",
            field="floor",
            fix=f"Use {1 / count:g} at most.",
        )
    if not 0 <= beta <= 1:
        raise Invalid(f"{beta} is no probability", field="beta", fix="Use 0.5.")
    known = [(index, arm) for index, arm in enumerate(posteriors) if arm is not None and arm.known]
    shares = np.full(count, 1.0 / count)
    if len(known) > 1:
        best = probability_best([arm for _, arm in known], better)
        for (index, _), share in zip(known, top_two(best, beta), strict=True):
            shares[index] = share * len(known) / count
    return _floored(shares, floor)


def top_two(best: Sequence[float], beta: float = DEFAULT_BETA) -> list[float]:
    """The share ψ of each arm by its probability to be the best.

    >>> top_two([0.75, 0.25], 0.5)
    [0.5, 0.5]
    """
    alpha = [float(value) for value in best]
    count = len(alpha)
    if count == 1:
        return [1.0]
    shares = [beta * value for value in alpha]
    for leader, chance in enumerate(alpha):
        # Summed rather than 1 − α, which has no digits left when the leader is all but certain.
        rest = math.fsum(value for index, value in enumerate(alpha) if index != leader)
        for index, value in enumerate(alpha):
            if index != leader:
                second = value / rest if rest > 0 else 1.0 / (count - 1)
                shares[index] += (1.0 - beta) * chance * second
    return shares


def _resolvable(posteriors: Sequence[Posterior]) -> list[Posterior]:
    largest = max((abs(arm.mean) for arm in posteriors if isinstance(arm, Normal)), default=0.0)
    finest = _FINEST * largest
    return [Normal(arm.mean, max(arm.se, finest)) if isinstance(arm, Normal) else arm for arm in posteriors]


def _above(posteriors: Sequence[Posterior], points: Floats) -> Floats:
    """1 − F, from the mirrored arms, so that small probabilities keep their digits."""
    return np.array(
        [
            Normal(-arm.mean, arm.se).below(-points)
            if isinstance(arm, Normal)
            else Beta(arm.b, arm.a).below(1.0 - points)
            for arm in posteriors
        ]
    )


def _grid(posteriors: Sequence[Posterior]) -> tuple[Floats, Floats]:
    edges = np.unique(np.concatenate([arm.breakpoints() for arm in posteriors]))
    half = np.diff(edges) / 2.0
    points = (edges[:-1] + half)[:, None] + half[:, None] * _NODES
    return points.ravel(), (half[:, None] * _NODE_WEIGHTS).ravel()


def _floored(shares: Floats, floor: float) -> list[float]:
    """The nearest point at which all shares are at least ``floor`` and add up to 1.

    Euclidean projection onto the simplex: Duchi, Shalev-Shwartz, Singer & Chandra 2008, ICML, fig. 1.
    """
    mass = max(1.0 - floor * len(shares), 0.0)
    free = shares - floor
    descending = np.sort(free)[::-1]
    shifts = (np.cumsum(descending) - mass) / np.arange(1, len(shares) + 1)
    # With no mass to divide, no arm is above the floor and the first shift is all that there is to take away.
    last = int(np.flatnonzero(descending > shifts)[-1]) if mass > 0 else 0
    projected = [floor + max(float(value - shifts[last]), 0.0) for value in free]
    largest = projected.index(max(projected))
    for _ in range(3):  # what rounding leaves; the second round is already exact
        projected[largest] += 1.0 - math.fsum(projected)
    return projected
