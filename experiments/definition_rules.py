"""What makes an experiment one that can be assigned and analysed: each rule names the field and the fix.

Light on purpose, as :mod:`experiments.experiment` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from experiments.metrics import Metric, metric_for
from experiments.ramp import LONGEST_DAYS, LONGEST_S
from servelens.errors import Invalid

if TYPE_CHECKING:
    from experiments.experiment import Experiment

_Part = TypeVar("_Part")
_Made = TypeVar("_Made")

_MOST_PHASES = 1_000_000  # the tables have 32 bits for one
_MOST_VARIANTS = 100  # a look has 8 bits for one
_MOST = 10**12  # more units or records than anybody has

_WEIGHT_TOLERANCE = 1e-6
_MAX_NAME = 200
_KINDS = ("ab", "canary", "shadow", "bandit")
_UNITS = ("user", "session", "request")


def validate(experiment: Experiment) -> None:
    """Raise :class:`~servelens.errors.Invalid` for the first thing that is wrong with one experiment."""
    _validate_identity(experiment)
    _validate_variants(experiment)
    _validate_place(experiment)
    _validate_statistics(experiment)
    _validate_metrics(experiment)
    _validate_kind(experiment)


def each_in_place(place: str, parts: Iterable[_Part], make: Callable[[_Part], _Made]) -> tuple[_Made, ...]:
    """What ``make`` makes of each part of the list at ``place``.

    Raises :class:`~servelens.errors.Invalid`, naming the part by its number, when one cannot be made.
    """
    made = []
    for index, part in enumerate(parts):
        try:
            made.append(make(part))
        except Invalid as error:
            raise error.within(f"{place}[{index}]") from error
    return tuple(made)


def refuse_overlaps(experiments: Iterable[Experiment]) -> None:
    """Raise :class:`~servelens.errors.Invalid` when two experiments that assign could both want a unit.

    On one endpoint all of them share one layer and one unit, since a request has one answer; in one layer
    their places do not overlap. Shadow experiments assign nobody, so any number may run.
    """
    by_layer: dict[str, list[Experiment]] = {}
    layer_of: dict[str, Experiment] = {}
    for experiment in experiments:
        if not experiment.assigns:
            continue
        first = layer_of.setdefault(experiment.endpoint, experiment)
        if first.layer != experiment.layer:
            raise Invalid(
                f"experiments '{first.name}' and '{experiment.name}' both decide on endpoint '{experiment.endpoint}', "
                f"in the layers '{first.layer}' and '{experiment.layer}'",
                field=f"experiments[{experiment.name}].layer",
                fix=f"Use layer '{first.layer}': a request has one answer.",
            )
        by_layer.setdefault(experiment.layer, []).append(experiment)
    for layer, members in by_layer.items():
        _refuse_shared_places(layer, members)


def _refuse_shared_places(layer: str, members: Sequence[Experiment]) -> None:
    for index, later in enumerate(members):
        for earlier in members[:index]:
            if earlier.unit != later.unit:
                raise Invalid(
                    f"'{earlier.name}' randomises by {earlier.unit} and '{later.name}' by {later.unit} in one layer",
                    field=f"experiments[{later.name}].unit",
                    fix=f"Use {earlier.unit}, so that nobody is in both.",
                )
            start = max(earlier.share_from, later.share_from)
            end = min(earlier.share_from + earlier.share, later.share_from + later.share)
            if end - start > _WEIGHT_TOLERANCE:
                free = earlier.share_from + earlier.share
                fix = (
                    f"Use share_from: {free:g} with a share of at most {100 - free:g}, or a smaller share for one."
                    if free < 100
                    else f"Lower the share of '{earlier.name}', or stop it."
                )
                raise Invalid(
                    f"'{earlier.name}' and '{later.name}' both want the units from {start:g} to {end:g} % of layer '{layer}'",
                    field=f"experiments[{later.name}].share_from",
                    fix=fix,
                )


def _validate_identity(experiment: Experiment) -> None:
    if not experiment.name or len(experiment.name) > _MAX_NAME:
        raise Invalid(
            f"an experiment needs a name of 1 to {_MAX_NAME} characters",
            field="name",
            fix="Name the experiment.",
        )
    if not experiment.endpoint:
        raise Invalid("an experiment runs on an endpoint", field="endpoint", fix="Name the endpoint.")
    if experiment.kind not in _KINDS:
        raise Invalid(
            f"{experiment.kind!r} is no kind of experiment", field="kind", fix=f"Use {', '.join(_KINDS)}."
        )
    if experiment.unit not in _UNITS:
        raise Invalid(f"{experiment.unit!r} is no unit", field="unit", fix="Use user, session or request.")


def _validate_variants(experiment: Experiment) -> None:
    if not experiment.treatments:
        raise Invalid(
            "an experiment compares at least two variants", field="treatments", fix="Add a treatment."
        )
    if experiment.kind == "canary" and len(experiment.treatments) != 1:
        raise Invalid(
            "a canary has one treatment", field="treatments", fix="Use kind: ab to compare several."
        )
    if len(experiment.variants) > _MOST_VARIANTS:
        raise Invalid(
            f"an experiment with {len(experiment.variants)} variants is not analysed",
            field="treatments",
            fix=f"Use at most {_MOST_VARIANTS - 1} of them.",
        )
    names = [variant.name for variant in experiment.variants]
    if not all(names) or len(set(names)) != len(names):
        raise Invalid(
            f"the variants' names are not distinct: {', '.join(names)}",
            field="treatments",
            fix="Give each its own name.",
        )
    for place, variant in enumerate(experiment.variants):
        if not math.isfinite(variant.weight) or variant.weight < 0:
            raise Invalid(
                f"the weight {variant.weight} is no percentage",
                field="control.weight" if place == 0 else f"treatments[{place - 1}].weight",
                fix="Use 0 to 100.",
            )
    total = math.fsum(variant.weight for variant in experiment.variants)
    if experiment.assigns and abs(total - 100.0) > _WEIGHT_TOLERANCE:
        raise Invalid(
            f"adds up to {total:g} over control and treatments, not 100",
            field="weight",
            fix="Change the weights so that they add up to 100 (percent).",
        )


def _validate_place(experiment: Experiment) -> None:
    if not 0 < experiment.share <= 100:
        raise Invalid(
            f"{experiment.share} is no share of the units in percent", field="share", fix="Use 1 to 100."
        )
    if not 0 <= experiment.share_from <= 100 - experiment.share + _WEIGHT_TOLERANCE:
        raise Invalid(
            f"a share of {experiment.share:g} % from {experiment.share_from:g} % on goes past 100 %",
            field="share_from",
            fix=f"Use 0 to {100 - experiment.share:g}.",
        )
    if not 0 <= experiment.phase <= _MOST_PHASES:
        raise Invalid(
            f"a phase counts from 0 to {_MOST_PHASES}",
            field="phase",
            fix="Raise it by one when weights change.",
        )


def _validate_statistics(experiment: Experiment) -> None:
    if not 0 < experiment.alpha < 0.5:
        raise Invalid(
            f"{experiment.alpha} is no error probability", field="alpha", fix="Use 0.05, for example."
        )
    if experiment.planned_units is not None and not 2 <= experiment.planned_units <= _MOST:
        raise Invalid(
            f"a plan has 2 to {_MOST} units", field="planned_units", fix="Leave it out for the default."
        )
    for name, most in (
        ("minimum_duration_s", LONGEST_S),
        ("outcome_window_s", LONGEST_S),
        ("cuped_days", LONGEST_DAYS),
    ):
        value = getattr(experiment, name)
        if not 0 <= value <= most:
            raise Invalid(
                f"{value:g} is no length of time that anybody will see",
                field=name,
                fix=f"Use 0 to {most:.0f}.",
            )
    if not 0 <= experiment.minimum_events <= _MOST:
        raise Invalid(
            f"a number of events counts from 0 to {_MOST}",
            field="minimum_events",
            fix="Leave it out, or use 1000, for example.",
        )
    if not 0 <= experiment.committed_looks <= 50:
        raise Invalid(
            f"{experiment.committed_looks} is no number of looks", field="committed_looks", fix="Use 0 to 50."
        )
    if experiment.committed_looks and experiment.planned_units is None:
        raise Invalid(
            "a committed horizon needs its length",
            field="planned_units",
            fix="Say how many units are planned.",
        )


def _validate_metrics(experiment: Experiment) -> None:
    named: set[str] = set()
    for field, name in _named_metrics(experiment):
        _metric_in(field, name)
        if name in named:
            raise Invalid(
                f"{name} is named twice", field=field, fix="Name each metric once, the primary one apart."
            )
        named.add(name)
    guarded: set[str] = set()
    for place, guardrail in enumerate(experiment.guardrails):
        if guardrail.metric in guarded:
            raise Invalid(
                f"{guardrail.metric} has two guardrails",
                field=f"guardrails[{place}].metric",
                fix="Keep the stricter one.",
            )
        guarded.add(guardrail.metric)
    entities = {variant.served_entity for variant in experiment.variants}
    for place, price in enumerate(experiment.prices):
        for name in ("input_per_million", "output_per_million"):
            value = getattr(price, name)
            if not (math.isfinite(value) and value >= 0):
                raise Invalid(
                    f"{value} is no price", field=f"prices[{place}].{name}", fix="Use a number from 0 on."
                )
    if any(metric_for(name).value == "cost" for name in experiment.metrics):
        missing = sorted(entities - {price.served_entity for price in experiment.prices})
        if missing:
            raise Invalid(
                f"the cost of '{missing[0]}' is not known",
                field="prices",
                fix="Add its input_per_million and output_per_million.",
            )


def _named_metrics(experiment: Experiment) -> Iterable[tuple[str, str]]:
    """The metrics that are named for themselves, by field."""
    yield "primary_metric", experiment.primary_metric
    for field in ("co_primary_metrics", "secondary_metrics"):
        for index, name in enumerate(getattr(experiment, field)):
            yield f"{field}[{index}]", name


def _metric_in(field: str, name: str) -> Metric:
    try:
        return metric_for(name)
    except Invalid as error:
        raise Invalid(error.message, field=field, fix=error.fix) from error


def _validate_kind(experiment: Experiment) -> None:
    if experiment.kind == "canary" and not experiment.guardrails:
        raise Invalid(
            "a canary without a guardrail could only be promoted",
            field="guardrails",
            fix="Add one, for example {metric: error_rate, margin: 0.01}.",
        )
    for field, kind in (("rollout", "canary"), ("bandit", "bandit")):
        if getattr(experiment, field) is not None and experiment.kind != kind:
            raise Invalid(
                f"'{field}' is for kind {kind}", field=field, fix=f"Leave it out, or use kind: {kind}."
            )
    if experiment.kind == "bandit" and (
        metric_for(experiment.primary_metric).better is None
        or metric_for(experiment.primary_metric).kind == "quantile"
    ):
        raise Invalid(
            f"a bandit cannot tell what is better by {experiment.primary_metric!r}",
            field="primary_metric",
            fix="Use a rate or an average with a good direction, such as success_rate or feedback:thumbs.",
        )
    if experiment.bandit is not None and experiment.bandit.floor * len(experiment.variants) >= 1:
        raise Invalid(
            f"a floor of {experiment.bandit.floor:g} for {len(experiment.variants)} variants leaves nothing to move",
            field="bandit.floor",
            fix=f"Use less than {1 / len(experiment.variants):g}.",
        )
    if experiment.kind == "shadow" and experiment.guardrails:
        raise Invalid(
            "nobody sees a shadow's answers, so there is nothing to guard",
            field="guardrails",
            fix="Name the metric under secondary_metrics.",
        )
    if experiment.kind == "shadow" and experiment.committed_looks:
        raise Invalid(
            "a shadow experiment has no planned looks",
            field="committed_looks",
            fix="Leave it out: look whenever you like.",
        )
    if experiment.kind == "shadow" and any(
        variant.served_entity == experiment.control.served_entity for variant in experiment.treatments
    ):
        raise Invalid(
            "a shadow of itself says nothing", field="treatments", fix="Name another served entity."
        )
