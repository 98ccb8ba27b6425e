"""What each guardrail says of each treatment: evidence of harm, and how large the harm can still be.

Two different questions, each with an error probability of its own. *Is it harmful?* The one-sided e-value against a
harm of at most ``tolerance``; one of m guardrails counts when its e-value has ever reached m/α, so that all of them
together raise a false alarm with probability at most α, however often one looks. *May it be promoted?* Only when the
time-uniform upper bound of the harm is under ``margin`` at every guardrail at once; since all of them have to hold,
each is asked at level α (an intersection-union test; Berger 1982, Technometrics 24).

Methods: the exact one-sided e-process where failures are independent draws with logged probabilities
(:mod:`experiments.statistics.e_process`), else the one-sided normal mixture
(:mod:`experiments.statistics.one_sided`); with too few failures for that, the exact bounds of each arm's rate
(:mod:`experiments.statistics.bernoulli`), so that a treatment without any failure can be promoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from experiments.analysis.estimate import event_counts, frozen_r, has_returning, strata_of
from experiments.analysis.levels import guardrail_level
from experiments.analysis.memory import Memory
from experiments.analysis.quantile_estimate import quantile_bounds
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.measurement.measured import Measured, Measurements
from experiments.metrics import Metric, metric_for
from experiments.report import GuardrailResult
from experiments.statistics.bernoulli import lower_bound, upper_bound
from experiments.statistics.e_process import Alternative, one_sided_log_e
from experiments.statistics.effect import Effect, Stratum, Undecided, effect
from experiments.statistics.one_sided import guardrail as one_sided_guardrail
from experiments.statistics.statistic import Moments

# Beyond this an e-value is certainty; its inverse is kept as a float.
_MOST_LOG_E = 700.0


@dataclass(frozen=True, slots=True)
class Harm:
    """``harm`` and ``upper`` are on the metric's scale; NaN where nothing is known."""

    harm: float
    upper: float
    log_e: float
    method: str


def guardrail_results(
    experiment: Experiment, measurements: Measurements, memory: Memory
) -> tuple[GuardrailResult, ...]:
    """Every guardrail of every treatment, on the evidence so far."""
    measured = {each.metric.name: each for each in measurements.metrics}
    return tuple(
        guardrail_result(
            experiment,
            guardrail,
            treatment,
            memory,
            harm_of(experiment, measurements, measured[guardrail.metric], guardrail, treatment, memory),
        )
        for guardrail in experiment.guardrails
        for treatment in experiment.treatments
    )


def guardrail_result(
    experiment: Experiment,
    guardrail: Guardrail,
    treatment: Variant,
    memory: Memory,
    found: Harm | Undecided,
) -> GuardrailResult:
    """The state that follows, with the largest e-value so far taken into account."""
    metric = metric_for(guardrail.metric)
    threshold = -math.log(guardrail_level(experiment))
    margin, tolerance = guardrail.on_scale(guardrail.margin), guardrail.on_scale(guardrail.tolerance)
    key = (f"guardrail:{metric.name}", treatment.name)
    if isinstance(found, Undecided) or math.isnan(found.log_e):
        known = memory.running_p(*key)
    else:
        known = memory.lower_p(*key, math.exp(-min(max(found.log_e, 0.0), _MOST_LOG_E)), found.harm)
    running_log_e = None if known is None else -math.log(known.p_value)
    breached = running_log_e is not None and running_log_e >= threshold
    unknown = GuardrailResult(
        metric=metric.name,
        label=metric.label,
        treatment=treatment.name,
        scale=metric.scale,
        unit=metric.unit,
        margin=margin,
        tolerance=tolerance,
        harm=None,
        upper=None,
        log_e=None,
        running_log_e=running_log_e,
        threshold=threshold,
        state="breached" if breached else "unknown",
        method=None,
        reason="",
    )
    if isinstance(found, Undecided):
        return replace(unknown, reason=found.reason)
    cleared = found.upper < margin
    return replace(
        unknown,
        harm=found.harm,
        upper=found.upper,
        log_e=found.log_e,
        state="breached" if breached else "cleared" if cleared else "open",
        method=found.method,
        reason=_words(metric, guardrail, found, running_log_e, margin, breached=breached),
    )


def harm_of(
    experiment: Experiment,
    measurements: Measurements,
    measured: Measured,
    guardrail: Guardrail,
    treatment: Variant,
    memory: Memory,
) -> Harm | Undecided:
    """The harm that ``treatment`` does on the guardrail's metric."""
    metric, control = measured.metric, experiment.control.name
    if metric.kind == "quantile":
        return _by_ranks(experiment, measured, guardrail, treatment)
    strata, crossings = strata_of(measured, control, treatment.name)
    events = event_counts(measurements, measured, control, treatment.name)
    found = effect(metric, strata, crossings, names=(control, treatment.name), unit=experiment.unit)
    log_e = math.nan
    if events is not None and guardrail.tolerance == 0:
        # Events are failures; who has said that the good direction is another one is harmed by fewer of them.
        harmful: Alternative = "greater" if guardrail.better in (None, metric.better) else "less"
        log_e = one_sided_log_e(events, harmful)
    if isinstance(found, Undecided):
        returning = has_returning(measured, control, treatment.name)
        return _by_rates(metric, guardrail, strata, experiment.alpha, log_e, returning=returning) or found
    normal = _by_normal(experiment, metric, guardrail, treatment, found, memory)
    if math.isnan(log_e):
        return normal
    return Harm(normal.harm, normal.upper, log_e, "exact e-process")


def _by_normal(
    experiment: Experiment,
    metric: Metric,
    guardrail: Guardrail,
    treatment: Variant,
    found: Effect,
    memory: Memory,
) -> Harm:
    alpha = experiment.alpha
    r = frozen_r(experiment, f"guardrail:{metric.name}", treatment, found, memory, alpha)
    tolerance = guardrail.on_scale(guardrail.tolerance)
    result = one_sided_guardrail(found, "higher" if guardrail.harm_sign < 0 else "lower", tolerance, r, alpha)
    return Harm(guardrail.harm_sign * found.difference, result.high, result.log_e, "one-sided normal mixture")


def _by_ranks(
    experiment: Experiment, measured: Measured, guardrail: Guardrail, treatment: Variant
) -> Harm | Undecided:
    """Two-sided bounds at twice each one-sided level. An exclusion at α/m counts as an e-value of m/α, and nothing less
    does.
    """
    sign, level = guardrail.harm_sign, guardrail_level(experiment)
    alarm = quantile_bounds(experiment, measured, treatment, 2 * level)
    bounds = quantile_bounds(experiment, measured, treatment, 2 * experiment.alpha)
    if isinstance(alarm, Undecided):
        return alarm
    if isinstance(bounds, Undecided):
        return bounds
    harms = sorted((sign * alarm[0].low, sign * alarm[0].high))
    log_e = -math.log(level) if harms[0] > guardrail.on_scale(guardrail.tolerance) else math.nan
    return Harm(sign * bounds[0].estimate, max(sign * bounds[0].low, sign * bounds[0].high), log_e, bounds[1])


def _by_rates(
    metric: Metric,
    guardrail: Guardrail,
    strata: list[Stratum],
    alpha: float,
    log_e: float,
    *,
    returning: bool,
) -> Harm | None:
    """Exact bounds of both arms' rates; ``None`` where the metric is no rate or an arm has no unit.

    Each arm's bound has half of α. A unit with several records counts as one draw with a failure when any of them
    failed; there are at most as many such units as failures. Where units are ``returning`` in other phases, there are at
    least as many of them as in the phase that has most.
    """
    if metric.kind != "rate":
        return None
    control = sum((stratum.control for stratum in strata), Moments())
    treatment = sum((stratum.treatment for stratum in strata), Moments())
    if not (control.units and treatment.units):
        return None
    bad = [arm.records - arm.total if guardrail.harm_sign < 0 else arm.total for arm in (control, treatment)]
    draws = max(stratum.treatment.units for stratum in strata) if returning else treatment.units
    upper = upper_bound(min(bad[1], draws), draws, alpha / 2)
    # Failures of few units could all be one unit's, so several records bound nothing from below.
    single = control.one_record_each and not returning
    lower = lower_bound(bad[0], control.units, alpha / 2) if single else 0.0
    harm = bad[1] / treatment.records - bad[0] / control.records
    return Harm(harm, upper - lower, 0.0 if math.isnan(log_e) else log_e, "exact bounds of the rates")


def _words(
    metric: Metric,
    guardrail: Guardrail,
    found: Harm,
    running_log_e: float | None,
    margin: float,
    *,
    breached: bool,
) -> str:
    amount = harm_words(metric, guardrail, found.harm)
    if breached:
        odds = math.exp(min(running_log_e or 0.0, _MOST_LOG_E))
        shown = f"{odds:,.0f}" if odds < 1e6 else "over a million"
        allowed = (
            "none" if not guardrail.tolerance else harm_size(metric, guardrail.on_scale(guardrail.tolerance))
        )
        return f"{amount}, and the evidence for more harm than {allowed} is {shown} to 1"
    bound = harm_size(metric, found.upper)
    allowed = harm_size(metric, margin)
    if found.upper < margin:
        return f"at most {bound} worse, where {allowed} would be allowed"
    if not math.isfinite(found.upper):
        return f"there is too little traffic to bound the harm, and {allowed} would be allowed"
    return f"may still be {bound} worse, where {allowed} would be allowed"


def harm_words(metric: Metric, guardrail: Guardrail, harm: float) -> str:
    """``1.9 points worse``, ``12 % better``."""
    return f"{harm_size(metric, abs(harm))} {'worse' if harm > 0 else 'better'}"


def harm_size(metric: Metric, harm: float) -> str:
    """A harm's size in the metric's unit."""
    if metric.scale == "log":
        return f"{math.expm1(min(harm, _MOST_LOG_E)) * 100:.3g} %"
    if metric.unit == "rate":
        return f"{harm * 100:.3g} points"
    return f"{harm:.3g}{' ms' if metric.unit == 'ms' else ''}"
