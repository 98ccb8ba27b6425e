"""Guardrails: what a treatment may not spoil. A guardrail can only stop; it never makes a winner.

Light on purpose: the proxy builds experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from experiments.metrics import Direction, Metric, metric_for
from servelens.errors import Invalid


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One metric with the harm that is allowed.

    *Harm* is the treatment's difference to the control in the bad direction. The treatment may be promoted
    once the harm's upper bound is under ``margin``; it is rolled back once there is evidence for a harm of
    more than ``tolerance`` (0: any harm at all). Both are in the metric's unit (0.01 is one percentage point
    of a rate), or a fraction on the log scale (0.1 is 10 % slower). ``better`` is needed where the metric
    itself has no good direction.

    >>> Guardrail("error_rate", margin=0.01).harm_sign
    1.0
    """

    metric: str
    margin: float
    tolerance: float = 0.0
    better: Direction | None = None

    def __post_init__(self) -> None:
        metric = metric_for(self.metric)
        if self.better is None and metric.better is None:
            raise Invalid(
                f"nobody can say what is harm on {self.metric!r}",
                field="better",
                fix="Say better: higher, or better: lower.",
            )
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise Invalid(f"{self.margin} is no margin", field="margin", fix="Use a number above 0.")
        if metric.kind == "rate" and self.margin >= 1:
            raise Invalid(
                f"a margin of {self.margin:g} on a rate allows everything",
                field="margin",
                fix="Use 0.01 for one percentage point.",
            )
        if not 0 <= self.tolerance < self.margin:
            raise Invalid(
                f"the tolerance {self.tolerance} is not under the margin {self.margin}",
                field="tolerance",
                fix="Leave it out, or use a number from 0 to the margin.",
            )

    @property
    def harm_sign(self) -> float:
        """Harm is this times the difference on the metric's scale."""
        return -1.0 if (self.better or metric_for(self.metric).better) == "higher" else 1.0

    def on_scale(self, harm: float) -> float:
        """``margin`` or ``tolerance`` as a difference on the metric's scale (logarithms for a fraction)."""
        metric: Metric = metric_for(self.metric)
        if metric.scale != "log":
            return harm
        if self.harm_sign > 0:
            return math.log1p(harm)
        return -math.log1p(-harm) if harm < 1 else math.inf
