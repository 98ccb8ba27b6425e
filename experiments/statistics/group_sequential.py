"""Group-sequential designs: a committed horizon, a few looks, and an error rate that is spent over them.

Whoever commits to a final size beforehand may look on the way for little: a spending function says which part
of alpha has been used up when a fraction t of the final information is there (Lan & DeMets 1983, Biometrika
70(3)), so neither the number of looks nor their times need be known. z·√t is a Brownian motion at time t; the
chance that it leaves the boundaries for the first time at a look comes from integrating the density of what
has stayed inside, look by look (Armitage, McPherson & Rowe 1969, JRSS A 132; Jennison & Turnbull 2000, "Group
Sequential Methods", ch. 19).

A two-sided level is spent as gsDesign and ldbounds do it: alpha/2 on each side.

Invariant: what has been spent never exceeds the spending function, and a boundary depends on information
fractions only, never on what was measured. A look that cannot decide has an infinite critical value (nothing
was spent on it), one whose information is not known has NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from servelens.errors import Invalid

Floats = NDArray[np.float64]

# (information fraction in [0, 1], error probability of one side) → the part of it that may be used up by then
Spending = Callable[[float, float], float]

# A look before the end that adds less than this share of the information has nothing new to say, and the
# density after it would be too sharp to integrate cheaply; its part is spent at the next look.
_SMALLEST_GAIN = 2.5e-3
_SMALLEST_LAST_GAIN = 1e-6

# The integrand is a product of two normal densities: twelve Gauss-Legendre points on four standard deviations of
# the narrower one move a boundary by less than 1e-11. What is farther out than eight has a probability of 1e-15.
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(12)
_PANEL = 4.0
_FAR = 8.0

_SMALLEST_SHARE = 1e-300
_SMALLEST_ALPHA, _LARGEST_ALPHA = 1e-290, 1.0 - 1e-9
_LARGEST_Z = 60.0


def obrien_fleming_spending(t: float, alpha: float) -> float:
    """2 − 2Φ(z_{alpha/2}/√t): next to nothing early, so that the last look costs hardly more than one alone.

    >>> f"{obrien_fleming_spending(0.5, 0.025):.5f}"
    '0.00153'
    """
    return 0.0 if t <= 0 else 2.0 * float(ndtr(ndtri(alpha / 2.0) / math.sqrt(min(t, 1.0))))


def pocock_spending(t: float, alpha: float) -> float:
    """alpha·ln(1 + (e−1)t): nearly even, for whoever wants to stop early and pays for it at the end.

    >>> f"{pocock_spending(0.5, 0.025):.5f}"
    '0.01550'
    """
    return alpha * math.log1p(math.expm1(1.0) * min(max(t, 0.0), 1.0))


@dataclass(frozen=True, slots=True)
class Crossing:
    """The probabilities of leaving through each boundary for the first time, look by look."""

    upper: tuple[float, ...]
    lower: tuple[float, ...]

    @property
    def total(self) -> float:
        """The probability of leaving at any look, through either boundary."""
        return min(math.fsum(self.upper) + math.fsum(self.lower), 1.0)


@dataclass(frozen=True, slots=True)
class GroupSequentialDesign:
    """A two-sided test at level ``alpha`` whose error is spent by ``spending``.

    ``information_fractions`` are everywhere those of all looks so far, in their order: the units or the
    information (1/se²) at a look over what was planned for the end. The last may be under 1: the looks so far
    decide. One beyond 1 spends what is left and no more.

    Raises :class:`~servelens.errors.Invalid` for an alpha outside (0, 0.5).

    >>> [round(z, 2) for z in GroupSequentialDesign().boundaries([0.5, 1.0])]
    [2.96, 1.97]
    """

    alpha: float = 0.05
    spending: Spending = obrien_fleming_spending

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise Invalid(
                f"{self.alpha} is no error probability", field="alpha", fix="Use 0.05, for example."
            )

    def boundaries(self, information_fractions: Sequence[float]) -> list[float]:
        """The critical |z| at each look. Infinite: the look cannot decide; NaN: its information is unknown."""
        return _boundaries(information_fractions, self.alpha, self.spending)

    def power(self, drift: float, information_fractions: Sequence[float]) -> float:
        """The probability of crossing at any of the looks where ``drift`` is the mean of z at fraction 1."""
        return self._crossing(drift, information_fractions).total

    def expected_fraction(self, drift: float, information_fractions: Sequence[float]) -> float:
        """The mean information fraction at which it ends: where it crosses, or at the last look. NaN: no look."""
        last = max((t for t in information_fractions if math.isfinite(t)), default=math.nan)
        crossing = self._crossing(drift, information_fractions)
        looks = list(zip(information_fractions, crossing.upper, crossing.lower, strict=True))
        stopped = math.fsum(t * (up + down) for t, up, down in looks if up + down > 0)
        return stopped + last * (1.0 - crossing.total)

    def inflation(self, power: float, information_fractions: Sequence[float]) -> float:
        """How many times the information of a single look the end must have for the same ``power``.

        Jennison & Turnbull 2000, §2.3 (their R). ``information_fractions`` are the planned ones, up to 1.

        >>> round(GroupSequentialDesign().inflation(0.9, [0.2, 0.4, 0.6, 0.8, 1.0]), 3)
        1.023
        """
        if not self.alpha < power < 1:
            raise Invalid(f"{power} is no power at level {self.alpha}", field="power", fix="Use 0.8 or 0.9.")
        fractions = list(information_fractions)
        if not math.isfinite(min(self.boundaries(fractions), default=math.inf)):
            raise Invalid(
                "no planned look can decide", field="information_fractions", fix="Let the last one be 1."
            )
        alone = float(ndtri(power) - ndtri(self.alpha / 2.0))
        drift = brentq(lambda theta: self.power(theta, fractions) - power, 0.0, 10.0 * alone, xtol=1e-9)
        return float((drift / alone) ** 2)

    def adjusted_p(self, information_fractions: Sequence[float], z: Sequence[float]) -> float:
        """The smallest level at which any look so far would have rejected; at most alpha iff one did.

        The sequential p-value of Liu & Anderson 2008 (JASA 103(484)) and Maurer & Bretz 2013 (Statistics in
        Biopharmaceutical Research 5(4)), as in gsDesign's ``sequentialPValue``, here two-sided. Unlike the
        stagewise p-value it may be read at every look and needs no stop. ``z`` has one value for each look, NaN
        where there was none; with none at all the answer is NaN.
        """
        seen = [min(abs(value), _LARGEST_Z) for value in z]
        if not any(
            math.isfinite(value) and t > 0 for value, t in zip(seen, information_fractions, strict=True)
        ):
            return math.nan

        def excess(logarithm: float) -> float:
            critical = _boundaries(information_fractions, math.exp(logarithm), self.spending)
            gaps = (value - c for value, c in zip(seen, critical, strict=True) if value == value and c == c)
            return max(max(gaps, default=-math.inf), -2.0 * _LARGEST_Z)

        low, high = math.log(_SMALLEST_ALPHA), math.log(_LARGEST_ALPHA)
        if excess(high) < 0:
            return 1.0
        if excess(low) >= 0:
            return 0.0
        return float(math.exp(brentq(excess, low, high, xtol=1e-10, rtol=1e-12)))

    def half_widths(
        self, information_fractions: Sequence[float], standard_errors: Sequence[float]
    ) -> list[float]:
        """Half-widths of the repeated confidence intervals: critical value times standard error at each look.

        They hold at all looks at once with probability 1 − alpha, whether or not one stops (Jennison & Turnbull
        1989, JRSS B 51(3)).
        """
        critical = self.boundaries(information_fractions)
        return [c * se for c, se in zip(critical, standard_errors, strict=True)]

    def _crossing(self, drift: float, information_fractions: Sequence[float]) -> Crossing:
        critical = self.boundaries(information_fractions)
        return crossing_probabilities(information_fractions, critical, drift=drift)


def crossing_probabilities(
    information: Sequence[float],
    upper: Sequence[float],
    lower: Sequence[float] | None = None,
    *,
    drift: float = 0.0,
) -> Crossing:
    """First-crossing probabilities of a Brownian motion with ``drift`` (its mean at information 1).

    ``upper`` and ``lower`` are on the scale of z = B(t)/√t; without ``lower`` it is −``upper``. Looks where both
    are infinite or NaN are passed over; at the others ``information`` is positive and ascending.
    """
    below = [-value for value in upper] if lower is None else list(lower)
    counted = [
        i for i, bounds in enumerate(zip(below, upper, strict=True)) if any(map(math.isfinite, bounds))
    ]
    through_upper, through_lower = [0.0] * len(upper), [0.0] * len(upper)
    state = _START
    for position, index in enumerate(counted):
        t = information[index]
        low, high = below[index] * math.sqrt(t), upper[index] * math.sqrt(t)
        through_upper[index] = _beyond(state, t, high, drift)
        through_lower[index] = _beyond(_mirrored(state), t, -low, -drift)
        if position + 1 < len(counted):
            state = _advanced(state, t, low, high, information[counted[position + 1]], drift)
    return Crossing(tuple(through_upper), tuple(through_lower))


@dataclass(frozen=True, slots=True)
class _State:
    """The process at ``information`` where it has not crossed yet: quadrature points and their masses."""

    information: float
    points: Floats
    masses: Floats


_START = _State(0.0, np.zeros(1), np.ones(1))


def _mirrored(state: _State) -> _State:
    return _State(state.information, -state.points, state.masses)


def _beyond(state: _State, t: float, boundary: float, drift: float) -> float:
    """The mass that is above ``boundary`` at ``t``; the boundary is on the scale of B."""
    gain = t - state.information
    return float(state.masses @ ndtr((state.points + drift * gain - boundary) / math.sqrt(gain)))


def _advanced(state: _State, t: float, low: float, high: float, following: float, drift: float) -> _State:
    """The state at ``t`` between ``low`` and ``high``, fine enough to go on to ``following``."""
    gain = t - state.information
    spread = math.sqrt(gain)
    low, high = max(low, drift * t - _FAR * math.sqrt(t)), min(high, drift * t + _FAR * math.sqrt(t))
    if low >= high:
        return _State(t, np.zeros(1), np.zeros(1))
    width = _PANEL * math.sqrt(min(gain, following - t))
    panels = math.ceil((high - low) / width)
    half = (high - low) / panels / 2.0
    centres = low + half * (2.0 * np.arange(panels) + 1.0)
    points = (centres[:, None] + half * _NODES).ravel()
    weights = np.tile(half * _NODE_WEIGHTS, panels)
    steps = (points[:, None] - (state.points + drift * gain)) / spread
    density = np.exp(-0.5 * steps * steps) @ state.masses / (spread * math.sqrt(2.0 * math.pi))
    return _State(t, points, weights * density)


def _boundaries(information: Sequence[float], alpha: float, spending: Spending) -> list[float]:
    critical = [math.inf if math.isfinite(t) else math.nan for t in information]
    counted = _counted(information)
    state, spent = _START, 0.0
    for position, (index, t) in enumerate(counted):
        due = spending(min(t, 1.0), alpha / 2.0)
        critical[index] = _critical(state, t, due - spent)
        spent = max(spent, due)
        if position + 1 < len(counted):
            edge = critical[index] * math.sqrt(t)
            state = _advanced(state, t, -edge, edge, counted[position + 1][1], 0.0)
    return critical


def _counted(information: Sequence[float]) -> list[tuple[int, float]]:
    """The looks that have something new to say, with their information."""
    counted: list[tuple[int, float]] = []
    last = 0.0
    for index, t in enumerate(information):
        needed = _SMALLEST_GAIN if t < 1.0 or last >= 1.0 else _SMALLEST_LAST_GAIN
        if math.isfinite(t) and t > 0 and t - last >= needed * t:
            counted.append((index, t))
            last = t
    return counted


def _critical(state: _State, t: float, share: float) -> float:
    """The |z| beyond which the process, where it has not crossed, is with probability ``share`` on each side."""
    if not share > _SMALLEST_SHARE:
        return math.inf
    alone = -float(ndtri(share))
    if state.information == 0.0:
        return alone
    excess = partial(_log_excess, state, t, math.log(share))
    # What has crossed before is gone, so a single look's value is the largest that can be needed.
    return float(brentq(excess, 0.0, alone + 1e-3, xtol=1e-11))


def _log_excess(state: _State, t: float, log_share: float, z: float) -> float:
    return math.log(max(_beyond(state, t, z * math.sqrt(t), 0.0), 1e-320)) - log_share
