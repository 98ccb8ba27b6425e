"""What was measured of one variant, for the report."""

from __future__ import annotations

import math

from experiments.experiment import Variant
from experiments.measurement.measured import Measured
from experiments.report import VariantResult


def variant_result(measured: Measured, variant: Variant) -> VariantResult:
    """Over several phases the estimate is the mean of the phases', weighted by the phase's units in all
    variants.
    """
    reasons = measured.excluded.get(variant.name, {})
    own = {phase: moments for (phase, name), moments in measured.cells.items() if name == variant.name}
    sizes = {
        phase: sum(moments.units for (other, _), moments in measured.cells.items() if other == phase)
        for phase in own
    }
    total = sum(sizes.values())
    estimate, se = math.nan, math.nan
    if total and not any(moments.too_large for moments in own.values()):
        estimate = math.fsum(sizes[phase] / total * moments.mean for phase, moments in own.items())
        square = math.fsum((sizes[phase] / total) ** 2 * m.variance_of_mean() for phase, m in own.items())
        se = math.sqrt(square)
    if measured.metric.scale == "log":
        estimate = math.exp(estimate) if estimate < 700.0 else math.nan
        se = estimate * se
    return VariantResult(
        n_units=sum(moments.units for moments in own.values()),
        n_records=round(math.fsum(moments.records for moments in own.values())),
        excluded=sum(reasons.values()),
        excluded_reasons=dict(reasons),
        estimate=estimate,
        se=se,
    )
