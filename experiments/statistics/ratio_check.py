"""Sample-ratio check: did the variants get the units that they should have got?

A split that is off means that some units are missing, and which ones may depend on the variant, so no
result can be trusted (Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online controlled
experiments", KDD). A stopped experiment is judged by the χ² test at p < 0.001. While it runs it is looked
at again and again, so the sequential Dirichlet-multinomial test decides (Lindon & Malek 2022, arXiv
2011.03567), at the same level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.stats import chi2

from experiments.statistics.e_process import multinomial_log_e

THRESHOLD = 0.001

# How many units' worth of belief in the planned split: gross faults show within a hundred units.
_CONCENTRATION = 100.0


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """``p_value`` is the deciding one. ``expected`` and ``observed`` count units by variant."""

    ok: bool
    p_value: float
    decided_by: Literal["sequential", "chi_squared"]
    chi_squared_p_value: float
    sequential_p_value: float
    expected: dict[str, float]
    observed: dict[str, int]


def check_ratio(
    exposures: Mapping[int, Mapping[str, int]],
    weights: Mapping[int, Mapping[str, float]],
    *,
    running: bool,
    running_p: float = 1.0,
) -> RatioCheck:
    """Compare units by phase and variant with the phases' weights (any positive scale).

    Each unit counts in one phase only, so phases are independent: their χ² add up and their e-values
    multiply. ``running_p`` is the smallest sequential p-value of earlier looks.
    """
    expected: dict[str, float] = {}
    observed: dict[str, int] = {}
    statistic, degrees, log_e = 0.0, 0, 0.0
    impossible = False
    for phase, counts in exposures.items():
        shares = weights[phase]
        total, whole = sum(counts.values()), math.fsum(shares.values())
        names = list(shares)
        for name in names:
            observed[name] = observed.get(name, 0) + counts.get(name, 0)
            expected[name] = expected.get(name, 0.0) + total * shares[name] / whole
        impossible |= any(counts.get(name, 0) and not shares[name] for name in names)
        possible = [name for name in names if shares[name] > 0]
        if not total or len(possible) < 2:
            continue
        seen = [counts.get(name, 0) for name in possible]
        chances = [shares[name] / whole for name in possible]
        statistic += math.fsum(
            (k - total * pi) ** 2 / (total * pi) for k, pi in zip(seen, chances, strict=True)
        )
        degrees += len(possible) - 1
        log_e += multinomial_log_e(seen, chances, _CONCENTRATION)
    by_chi_squared = float(chi2.sf(statistic, degrees)) if degrees else 1.0
    by_sequence = min(1.0, running_p, math.exp(-log_e) if log_e > 0 else 1.0)
    if impossible:  # units in a variant of weight zero
        by_chi_squared = by_sequence = 0.0
    p = by_sequence if running else by_chi_squared
    return RatioCheck(
        ok=p >= THRESHOLD,
        p_value=p,
        decided_by="sequential" if running else "chi_squared",
        chi_squared_p_value=by_chi_squared,
        sequential_p_value=by_sequence,
        expected=expected,
        observed=observed,
    )
