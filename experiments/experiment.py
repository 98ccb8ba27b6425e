"""What an experiment is: who is compared, who is randomised, and what is measured. Frozen once it has
started.

Light on purpose: the proxy imports it, so nothing here may import scipy, polars or a database. An
experiment that exists is a valid one: every combination that could not be assigned or analysed is refused
when it is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal, NamedTuple, get_args

from experiments.metrics import metric_for
from servelens.errors import Invalid

Unit = Literal["user", "session", "request"]
Kind = Literal["ab"]

_WEIGHT_TOLERANCE = 1e-6
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm: its name, the served entity that answers for it, and its weight in percent of the
    experiment.
    """

    name: str
    served_entity: str
    weight: float


class Assignment(NamedTuple):
    """A decided variant and the probability, over all units of the endpoint, with which it was decided."""

    variant: Variant
    propensity: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """A comparison of variants on one endpoint.

    ``share`` is the percentage of the endpoint's units that take part; the others follow the endpoint's
    routes. ``salt`` seeds the assignment (the experiment's name when empty): it stays the same for the life
    of the experiment, so a unit keeps its variant even when ``share`` grows. ``phase`` counts changes of
    weights (``share`` may change within a phase: it moves no unit between variants); an analysis never
    pools two phases. ``alpha`` is the two-sided error probability; ``planned_units`` the planned total over
    all variants, at which the always-valid interval is tightest.

    Raises :class:`~servelens.errors.Invalid`, naming the field, for anything that could not be assigned or
    analysed.

    >>> champion, challenger = Variant("champion", "m1", 90), Variant("challenger", "m2", 10)
    >>> Experiment("tone", "chat", champion, (challenger,), "success_rate").variants[1].name
    'challenger'
    """

    name: str
    endpoint: str
    control: Variant
    treatments: tuple[Variant, ...]
    primary_metric: str
    secondary_metrics: tuple[str, ...] = ()
    kind: Kind = "ab"
    unit: Unit = "user"
    share: float = 100.0
    salt: str = ""
    phase: int = 0
    alpha: float = 0.05
    planned_units: int | None = None
    # Decided once here and not for each request: (upper end in [0, 1], what is assigned below it), ascending.
    arms: tuple[tuple[float, Assignment], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "treatments", tuple(self.treatments))
        object.__setattr__(self, "secondary_metrics", tuple(self.secondary_metrics))
        object.__setattr__(self, "salt", self.salt or self.name)
        _validate(self)
        chosen = [variant for variant in self.variants if variant.weight > 0]
        uppers = list(accumulate(variant.weight / 100.0 for variant in chosen))
        uppers[-1] = 1.0  # a sum of floats may end just under 1 and leave a unit without a variant
        share = self.share / 100.0
        arms = tuple(
            (upper, Assignment(variant, share * variant.weight / 100.0))
            for upper, variant in zip(uppers, chosen, strict=True)
        )
        object.__setattr__(self, "arms", arms)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Control first, then the treatments in their order."""
        return (self.control, *self.treatments)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The primary metric first, then the secondary ones."""
        return (self.primary_metric, *self.secondary_metrics)

    def with_weights(self, weights: dict[str, float], *, share: float | None = None) -> Experiment:
        """The same experiment in its next phase: other weights, optionally another share; units keep their
        hash.
        """
        return replace(
            self,
            control=_reweighted(self.control, weights),
            treatments=tuple(_reweighted(variant, weights) for variant in self.treatments),
            share=self.share if share is None else share,
            phase=self.phase + 1,
        )

    def to_dict(self) -> dict[str, Any]:
        """The definition as JSON-able values; :func:`experiment_from_dict` reads it back."""
        return {
            "name": self.name,
            "endpoint": self.endpoint,
            "control": _variant_dict(self.control),
            "treatments": [_variant_dict(variant) for variant in self.treatments],
            "primary_metric": self.primary_metric,
            "secondary_metrics": list(self.secondary_metrics),
            "kind": self.kind,
            "unit": self.unit,
            "share": self.share,
            "salt": self.salt,
            "phase": self.phase,
            "alpha": self.alpha,
            "planned_units": self.planned_units,
        }


def experiment_from_dict(definition: dict[str, Any]) -> Experiment:
    """The experiment that :meth:`Experiment.to_dict` wrote."""
    values = dict(definition)
    values["control"] = Variant(**values["control"])
    values["treatments"] = tuple(Variant(**variant) for variant in values["treatments"])
    values["secondary_metrics"] = tuple(values["secondary_metrics"])
    return Experiment(**values)


def _variant_dict(variant: Variant) -> dict[str, Any]:
    return {"name": variant.name, "served_entity": variant.served_entity, "weight": variant.weight}


def _reweighted(variant: Variant, weights: dict[str, float]) -> Variant:
    return replace(variant, weight=weights.get(variant.name, variant.weight))


def _validate(experiment: Experiment) -> None:
    if not experiment.name or len(experiment.name) > _MAX_NAME:
        raise Invalid(
            f"an experiment needs a name of 1 to {_MAX_NAME} characters",
            field="name",
            fix="Name the experiment.",
        )
    if not experiment.endpoint:
        raise Invalid("an experiment runs on an endpoint", field="endpoint", fix="Name the endpoint.")
    if experiment.kind not in get_args(Kind):
        raise Invalid(f"{experiment.kind!r} is no kind of experiment", field="kind", fix="Use ab.")
    if experiment.unit not in get_args(Unit):
        raise Invalid(f"{experiment.unit!r} is no unit", field="unit", fix="Use user, session or request.")
    _validate_variants(experiment)
    if not 0 < experiment.share <= 100:
        raise Invalid(
            f"{experiment.share} is no share of the units in percent", field="share", fix="Use 1 to 100."
        )
    if not 0 < experiment.alpha < 0.5:
        raise Invalid(
            f"{experiment.alpha} is no error probability", field="alpha", fix="Use 0.05, for example."
        )
    if experiment.phase < 0:
        raise Invalid("a phase counts from 0", field="phase", fix="Raise it by one when weights change.")
    if experiment.planned_units is not None and experiment.planned_units < 2:
        raise Invalid(
            "a plan needs at least 2 units", field="planned_units", fix="Leave it out for the default."
        )
    for name in experiment.metrics:
        metric_for(name)
    if len(set(experiment.metrics)) != len(experiment.metrics):
        raise Invalid(
            "a metric is named twice",
            field="secondary_metrics",
            fix="Name each metric once, the primary one apart.",
        )


def _validate_variants(experiment: Experiment) -> None:
    if not experiment.treatments:
        raise Invalid(
            "an experiment compares at least two variants", field="treatments", fix="Add a treatment."
        )
    names = [variant.name for variant in experiment.variants]
    if not all(names) or len(set(names)) != len(names):
        raise Invalid(
            f"the variants' names are not distinct: {', '.join(names)}", field="treatments", fix="Rename one."
        )
    for variant in experiment.variants:
        if not math.isfinite(variant.weight) or variant.weight < 0:
            raise Invalid(f"the weight {variant.weight} is no percentage", field=f"{variant.name}.weight")
    total = math.fsum(variant.weight for variant in experiment.variants)
    if abs(total - 100.0) > _WEIGHT_TOLERANCE:
        raise Invalid(
            f"the variants' weights add up to {total:g}",
            field="weight",
            fix="Let them add up to 100 (percent).",
        )
