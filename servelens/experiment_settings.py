"""The settings of experiments, in the file and in the HTTP API, and the experiments that they describe."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from experiments.definition_rules import each_in_place
from experiments.experiment import Experiment, Price, Variant
from experiments.guardrail import Guardrail
from experiments.ramp import DEFAULT_DEADLINE_S, Bandit, Ramp, Step, Webhook
from servelens.errors import Invalid
from servelens.section import Name, Percentage, Positive, Section


class _Block(Section):
    # A limit also refuses text that is no valid Unicode, which a database keeps and no answer could show.
    model_config = ConfigDict(str_max_length=2_000)


class VariantSettings(_Block):
    """One arm of an experiment."""

    served_entity: str = Field(description="The served entity that answers for this variant.")
    name: Name | None = Field(None, description="Name of the variant. Default: the served entity's name.")
    weight: Percentage | None = Field(
        None,
        description="Share of the experiment's units, in percent. All weights add up to 100. A canary's come from its "
        "steps, a bandit's begin equal, and a shadow has none.",
    )


class GuardrailSettings(_Block):
    """What a treatment may not spoil."""

    metric: str = Field(description="`error_rate`, `latency_ms`, `latency_ms:p99` …")
    margin: Positive = Field(
        description="Promoted only once the harm is surely under this: in the metric's unit (0.01 is one percentage "
        "point), for times and perplexity a fraction (0.1 is 10 %)."
    )
    tolerance: float = Field(0.0, ge=0, description="Rolled back once the harm is surely over this.")
    better: Literal["higher", "lower"] | None = Field(
        None, description="The good direction, for a metric that has none of its own."
    )


class StepSettings(_Block):
    """One step of a canary."""

    weight: float = Field(gt=0, lt=100, description="The treatment's share of the experiment, in percent.")
    duration_s: float = Field(600.0, ge=0, description="Seconds before the next step, at least.")
    events: int = Field(100, ge=1, description="Records of the treatment before the next step, at least.")


class WebhookSettings(_Block):
    """Who hears of decisions."""

    url: str = Field(description="Address that gets a POST with the decision as JSON.")
    when: Literal["before", "after"] = Field(
        "after", description="`before`: anything but a 2xx holds the decision; `after`: is told."
    )
    timeout_s: float = Field(5.0, gt=0, le=60, description="Seconds to wait for the answer.")


class RolloutSettings(_Block):
    """How a canary's weight rises."""

    steps: list[StepSettings] = Field(
        default_factory=lambda: [StepSettings(weight=weight) for weight in (1, 5, 25, 50)],
        min_length=1,
        description="Rising weights.",
    )
    deadline_s: Positive = Field(
        DEFAULT_DEADLINE_S,
        description="Seconds after the begin of the last step, when a canary whose guardrails are still open ends inconclusive.",
    )
    dry_run: bool = Field(False, description="Decide and log, and change nothing.")
    webhooks: list[WebhookSettings] = Field(default_factory=list, description="Who hears of decisions.")


class BanditSettings(_Block):
    """How a bandit moves its weights."""

    floor: float = Field(0.05, gt=0, lt=0.5, description="Smallest probability of a variant.")
    every_s: Positive = Field(3_600.0, description="Seconds between two changes of the weights.")
    beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability to take the best of a draw, and not the best of the others: 0.5 learns fastest (and splits two "
        "variants evenly), 1 is plain Thompson sampling.",
    )


class PriceSettings(_Block):
    """What a served entity's tokens cost."""

    served_entity: str = Field(description="Name of the served entity.")
    input_per_million: float = Field(ge=0, description="For a million tokens in.")
    output_per_million: float = Field(ge=0, description="For a million tokens out.")


class ExperimentSettings(_Block):
    """A comparison of served entities on live traffic."""

    name: Name = Field(description="Name of the experiment, unique.")
    endpoint: str = Field(description="Name of the endpoint.")
    kind: Literal["ab", "canary", "shadow", "bandit"] = Field(
        "ab",
        description="`ab`: a fixed split; `canary`: one treatment whose weight rises while its guardrails hold; `shadow`: "
        "the treatments are the endpoint's shadows; `bandit`: weights move to what is better.",
    )
    unit: Literal["user", "session", "request"] = Field(
        "user", description="What is randomised, and keeps its variant."
    )
    control: VariantSettings = Field(description="The variant to compare with.")
    treatments: list[VariantSettings] = Field(min_length=1, description="The variants to try.")
    share: Percentage = Field(
        100.0, description="Share of the endpoint's units that take part; the others follow the routes."
    )
    share_from: Percentage = Field(
        0.0, description="Where the share begins in the layer, in percent. It grows at its end."
    )
    layer: Name | None = Field(
        None,
        description="Experiments of one layer have units of their own. Default: the endpoint's name.",
    )
    salt: str | None = Field(None, description="Seed of the assignment. Default: the experiment's name.")
    phase: int = Field(
        0, ge=0, description="Raise it by one when you change weights; phases are never pooled."
    )
    primary_metric: str = Field(
        "success_rate", description="`success_rate`, `latency_ms`, `score:perplexity` …"
    )
    co_primary_metrics: list[str] = Field(
        default_factory=list,
        description="Further metrics that a verdict may rest on; the error probability is shared (Holm).",
    )
    secondary_metrics: list[str] = Field(
        default_factory=lambda: ["latency_ms"], description="Further metrics, to explore."
    )
    guardrails: list[GuardrailSettings] = Field(
        default_factory=list, description="What a treatment may not spoil."
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Two-sided error probability.")
    planned_units: int | None = Field(None, ge=2, description="Planned number of units over all variants.")
    minimum_duration_s: float = Field(0.0, ge=0, description="Seconds before the first verdict, at least.")
    minimum_events: int = Field(
        0, ge=0, description="Records of each variant before the first verdict, at least."
    )
    committed_looks: int = Field(
        0,
        ge=0,
        le=50,
        description="Number of looks of a group-sequential design that ends at `planned_units`. 0: look whenever you like.",
    )
    outcome_window_s: float = Field(
        86_400.0,
        ge=0,
        description="Seconds that feedback may take. A record counts for a feedback metric when they are over.",
    )
    cuped_days: float = Field(
        0.0, ge=0, description="Days of the units' earlier traffic that reduce the variance (CUPED). 0: none."
    )
    prices: list[PriceSettings] = Field(default_factory=list, description="Prices, for the metric `cost`.")
    rollout: RolloutSettings | None = Field(None, description="A canary's way up.")
    bandit: BanditSettings | None = Field(None, description="A bandit's rules.")

    @property
    def arms(self) -> dict[str, VariantSettings]:
        """The variants, control first, by their place in the block."""
        treatments = {f"treatments[{index}]": arm for index, arm in enumerate(self.treatments)}
        return {"control": self.control, **treatments}

    def build(self) -> Experiment:
        """The experiment. Raises :class:`~servelens.errors.Invalid`, naming the field."""
        self._refuse_weights()
        control, *treatments = self._variants()
        rollout = self.rollout
        return Experiment(
            name=self.name,
            endpoint=self.endpoint,
            kind=self.kind,
            control=control,
            treatments=tuple(treatments),
            primary_metric=self.primary_metric,
            co_primary_metrics=tuple(self.co_primary_metrics),
            secondary_metrics=tuple(self.secondary_metrics),
            guardrails=each_in_place(
                "guardrails",
                self.guardrails,
                lambda each: Guardrail(each.metric, each.margin, each.tolerance, each.better),
            ),
            unit=self.unit,
            share=self.share,
            share_from=self.share_from,
            layer=self.layer or "",
            salt=self.salt or self.name,
            phase=self.phase,
            alpha=self.alpha,
            planned_units=self.planned_units,
            minimum_duration_s=self.minimum_duration_s,
            minimum_events=self.minimum_events,
            committed_looks=self.committed_looks,
            outcome_window_s=self.outcome_window_s,
            cuped_days=self.cuped_days,
            prices=tuple(
                Price(each.served_entity, each.input_per_million, each.output_per_million)
                for each in self.prices
            ),
            rollout=None
            if rollout is None
            else Ramp(
                each_in_place(
                    "rollout.steps",
                    rollout.steps,
                    lambda step: Step(step.weight, step.duration_s, step.events),
                ),
                rollout.deadline_s,
                rollout.dry_run,
                each_in_place(
                    "rollout.webhooks",
                    rollout.webhooks,
                    lambda each: Webhook(each.url, each.when, each.timeout_s),
                ),
            ),
            bandit=None
            if self.bandit is None
            else Bandit(self.bandit.floor, self.bandit.every_s, self.bandit.beta),
        )

    def _refuse_weights(self) -> None:
        """Weights that are missing or too many. That they add up is for the experiment to say."""
        given = [place for place, arm in self.arms.items() if arm.weight is not None]
        missing = [place for place in self.arms if place not in given]
        if self.kind in ("canary", "shadow") and given:
            come_from = (
                "come from rollout.steps" if self.kind == "canary" else "have no meaning: it answers nobody"
            )
            raise Invalid(
                f"the weights of a {self.kind} {come_from}.", field=f"{given[0]}.weight", fix="Leave it out."
            )
        if self.kind == "ab" and missing:
            raise Invalid(
                "is missing.",
                field=f"{missing[0]}.weight",
                fix="Give every variant one, in percent; they add up to 100.",
            )
        if self.kind == "bandit" and given and missing:
            raise Invalid(
                "is missing, where other variants have one.",
                field=f"{missing[0]}.weight",
                fix="Give every variant one, or none to begin equal.",
            )

    def _variants(self) -> list[Variant]:
        arms = list(self.arms.values())
        if self.kind == "canary":
            first = (self.rollout or RolloutSettings()).steps[0].weight
            weights = [100.0 - first, *(first for _ in self.treatments)]
        elif self.kind == "bandit" and arms[0].weight is None:
            weights = [100.0 / len(arms)] * len(arms)
        else:
            weights = [arm.weight or 0.0 for arm in arms]
        return [
            Variant(arm.name or arm.served_entity, arm.served_entity, weight)
            for arm, weight in zip(arms, weights, strict=True)
        ]
