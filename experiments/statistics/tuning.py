"""Which r the always-valid boundary uses at a look: κ·I, with κ frozen once.

κ says at which precision the boundary is tightest. It is chosen so that r is the best one when the planned number of
units is reached, which needs the metric's variance; so it is frozen at the first look that has enough units to know it,
and from then on no look can choose the boundary that suits it. Before that, r is the value that would freeze it, which
depends on the numbers of units only.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.statistics.effect import Effect
from experiments.statistics.sequential import planned_r

# On fewer units in an arm the standard error is too uncertain to fix κ for the life of the experiment.
UNITS_TO_FREEZE = 30


@dataclass(frozen=True, slots=True)
class Tuning:
    """``kappa`` is to be kept from now on; ``None`` when there are too few units to freeze it on."""

    r: float
    kappa: float | None


def tune(effect: Effect, kappa: float | None, planned_units: float, alpha: float) -> Tuning:
    """The r for this look, by the frozen ``kappa`` when there is one."""
    variance = effect.sequential.se**2
    if kappa is not None:
        return Tuning(kappa / variance, kappa)
    r = planned_r(effect.half_harmonic, planned_units, alpha)
    smallest = min(
        sum(stratum.control.units for stratum in effect.strata),
        sum(stratum.treatment.units for stratum in effect.strata),
    )
    return Tuning(r, r * variance if smallest >= UNITS_TO_FREEZE else None)
