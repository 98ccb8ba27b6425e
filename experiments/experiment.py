"""What an experiment is: who is compared, who is randomised, and what is measured. Frozen once it has
started.

Light on purpose: the proxy imports it, so nothing here may import scipy, polars or a database. An
experiment that exists is a valid one: every combination that could not be assigned or analysed is refused
when it is built (:mod:`experiments.definition_rules`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from experiments.definition_rules import each_in_place, validate
from experiments.guardrail import Guardrail
from experiments.ramp import Bandit, Ramp, Step, Webhook

Unit = Literal["user", "session", "request"]
Kind = Literal["ab", "canary", "shadow", "bandit"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm: its name, the served entity that answers for it, and its weight in percent of the
    experiment. A shadow experiment's treatments have no weight: they answer what the control answers.
    """

    name: str
    served_entity: str
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Price:
    """What a served entity's tokens cost, per million."""

    served_entity: str
    input_per_million: float
    output_per_million: float


class Assignment(NamedTuple):
    """A decided variant and the probability, over all units of the endpoint, with which it was decided."""

    variant: Variant
    propensity: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """A comparison of variants on one endpoint.

    ``share`` is the percentage of the endpoint's units that take part: those whose place in the ``layer`` lies
    in [``share_from``, ``share_from`` + ``share``). Experiments of one layer are exclusive, so their places may not
    overlap; a growing share keeps whom it has. The other units follow the endpoint's routes. ``salt`` seeds the
    assignment (the experiment's name when empty): it stays the same for the life of the experiment, so a unit
    keeps its variant even when ``share`` grows. ``phase`` counts changes of weights (``share`` may change within
    a phase: it moves no unit between variants); an analysis never pools two phases.

    ``alpha`` is the two-sided error probability; ``planned_units`` the planned total over all variants, at which
    the always-valid interval is tightest. Before ``minimum_duration_s`` and ``minimum_events`` records of each
    variant there is no verdict. With ``committed_looks`` the horizon ``planned_units`` is a promise, and a
    group-sequential design with that many looks decides. ``outcome_window_s`` is how long feedback may take: a
    record's feedback counts when that time is over. ``cuped_days`` of the units' earlier traffic reduce the
    variance. ``guardrails`` can only stop. ``rollout`` is a canary's, ``bandit`` a bandit's.

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
    co_primary_metrics: tuple[str, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    layer: str = ""
    share_from: float = 0.0
    minimum_duration_s: float = 0.0
    minimum_events: int = 0
    committed_looks: int = 0
    outcome_window_s: float = 86_400.0
    cuped_days: float = 0.0
    prices: tuple[Price, ...] = ()
    rollout: Ramp | None = None
    bandit: Bandit | None = None
    # Decided once here and not for each request: (upper end in [0, 1], what is assigned below it), ascending.
    arms: tuple[tuple[float, Assignment], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("treatments", "secondary_metrics", "co_primary_metrics", "guardrails", "prices"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "salt", self.salt or self.name)
        object.__setattr__(self, "layer", self.layer or self.endpoint)
        if self.kind == "canary" and self.rollout is None:
            object.__setattr__(self, "rollout", Ramp())
        if self.kind == "bandit" and self.bandit is None:
            object.__setattr__(self, "bandit", Bandit())
        validate(self)
        object.__setattr__(self, "arms", self._arms() if self.assigns else ())

    def _arms(self) -> tuple[tuple[float, Assignment], ...]:
        chosen = [variant for variant in self.variants if variant.weight > 0]
        uppers = list(accumulate(variant.weight / 100.0 for variant in chosen))
        uppers[-1] = 1.0  # a sum of floats may end just under 1 and leave a unit without a variant
        share = self.share / 100.0
        return tuple(
            (upper, Assignment(variant, share * variant.weight / 100.0))
            for upper, variant in zip(uppers, chosen, strict=True)
        )

    @property
    def assigns(self) -> bool:
        """Whether it decides who answers; a shadow experiment only watches."""
        return self.kind != "shadow"

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Control first, then the treatments in their order."""
        return (self.control, *self.treatments)

    @property
    def primary_metrics(self) -> tuple[str, ...]:
        """The metrics that the verdict rests on, each with its share of the error probability."""
        return (self.primary_metric, *self.co_primary_metrics)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The primary metrics first, then the secondary ones, then those that only a guardrail needs."""
        named = (
            *self.primary_metrics,
            *self.secondary_metrics,
            *(guardrail.metric for guardrail in self.guardrails),
        )
        return tuple(dict.fromkeys(named))

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
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self) if each.init}


def experiment_from_dict(definition: dict[str, Any]) -> Experiment:
    """The experiment that :meth:`Experiment.to_dict` wrote; an older one lacks what was not known then."""
    values = dict(definition)
    values["control"] = Variant(**values["control"])
    values["treatments"] = tuple(Variant(**variant) for variant in values["treatments"])
    values["guardrails"] = each_in_place(
        "guardrails", values.get("guardrails", ()), lambda each: Guardrail(**each)
    )
    values["prices"] = tuple(Price(**each) for each in values.get("prices", ()))
    if values.get("rollout") is not None:
        rollout = dict(values["rollout"])
        rollout["steps"] = each_in_place("rollout.steps", rollout["steps"], lambda step: Step(**step))
        rollout["webhooks"] = each_in_place(
            "rollout.webhooks", rollout.get("webhooks", ()), lambda webhook: Webhook(**webhook)
        )
        values["rollout"] = Ramp(**rollout)
    if values.get("bandit") is not None:
        values["bandit"] = Bandit(**values["bandit"])
    for name in ("secondary_metrics", "co_primary_metrics"):
        values[name] = tuple(values.get(name, ()))
    return Experiment(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Variant | Guardrail | Price | Ramp | Bandit):
        return {name: _plain(each) for name, each in asdict(value).items()}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _reweighted(variant: Variant, weights: dict[str, float]) -> Variant:
    return replace(variant, weight=weights.get(variant.name, variant.weight))
