"""A committed horizon: looks at planned information fractions, judged by a group-sequential design.

Invariant: a look is taken once, when its fraction has been reached, and what it saw is kept: later looks can neither
repeat nor improve it. Between two looks nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from experiments.analysis.estimate import Estimate
from experiments.analysis.memory import Memory
from experiments.experiment import Experiment
from experiments.statistics.group_sequential import GroupSequentialDesign, obrien_fleming_spending
from experiments.store import SeenLook


@dataclass(frozen=True, slots=True)
class Committed:
    """``crossed`` is the first look at or past its boundary, ``p_value`` the smallest level at which one was."""

    planned_looks: int
    looks: tuple[SeenLook, ...]
    crossed: SeenLook | None
    fraction: float
    p_value: float


def committed(
    experiment: Experiment, found: Estimate, memory: Memory, level: float, now: Callable[[], datetime]
) -> Committed | None:
    """The design's state after this look; ``None`` without a committed horizon, and for a quantile: that has no statistic
    which a design could judge, and is decided by bounds that hold at every look.
    """
    planned = experiment.committed_looks
    if not planned or found.metric.kind == "quantile":
        return None
    design = GroupSequentialDesign(level, obrien_fleming_spending)
    key = (found.metric.name, found.treatment_name)
    looks = memory.looks(*key)
    fraction = min(found.information_fraction, 1.0)
    due = math.floor(fraction * planned + 1e-9) if math.isfinite(fraction) else 0
    if due > max((look.look for look in looks), default=0) and math.isfinite(found.z):
        fractions = [*(look.fraction for look in looks), fraction]
        boundary = design.boundaries(fractions)[-1]
        looks = memory.add_look(*key, SeenLook(due, fraction, found.z, boundary, now()))
    crossed = next((look for look in looks if abs(look.z) >= look.boundary), None)
    p_value = design.adjusted_p([look.fraction for look in looks], [look.z for look in looks])
    return Committed(planned, tuple(looks), crossed, fraction, p_value)
