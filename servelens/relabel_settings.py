"""The settings of the relabeling queue."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from relabel.label_schema import LabelSchema
from relabel.schema_definition import built
from relabel.schema_shape import SchemaShape
from relabel.selection.bound import Bound
from relabel.selection.rule import (
    CaseRule,
    DriftRule,
    EvaluatorDisagreementRule,
    FeedbackRule,
    LabelRule,
    LowConfidenceRule,
    RandomRule,
    Rule,
    ShadowScoreRule,
    ShadowTextRule,
    UnscoredRule,
    check_names,
)
from relabel.selection.suppression import Suppression
from servelens.errors import Invalid
from servelens.section import Name, Positive, Section, refuse_duplicates

Side = Literal["request", "response"]

_COMMON: Final = frozenset({"endpoint", "kind", "name", "priority", "daily_budget", "sample"})
_OPTIONS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # kind: what it must have, what it may have
    "score": (("evaluator",), ("target", "above", "below")),
    "score_label": (("evaluator", "label"), ("target",)),
    "unscored": (("evaluator",), ("target", "reason")),
    "low_confidence": (("evaluator", "between"), ("target",)),
    "shadow_disagreement": ((), ("similarity_below", "evaluator", "target", "differs_by")),
    "evaluator_disagreement": (("evaluators",), ()),
    "feedback": (("feedback",), ("above", "below", "label")),
    "drift": ((), ("column", "granularity", "slice", "alpha", "min_effect", "per_window")),
    "random": (("fraction",), ()),
}


class RelabelBoundSettings(Section):
    """When one of two evaluators flags a record."""

    evaluator: str = Field(description="Name of the evaluator.")
    target: Side = Field("response", description="Which side the score is of.")
    above: float | None = Field(None, description="It flags a record by a score over this,")
    below: float | None = Field(None, description="or by one under this.")

    def build(self) -> Bound:
        """Raises :class:`~servelens.errors.Invalid`."""
        return Bound(self.evaluator, self.target, self.above, self.below)


class RelabelRuleSettings(Section):
    """What makes a record a case. Which of the keys below belong to which `kind`: `docs/selection.md`."""

    endpoint: str = Field(description="Name of the endpoint.")
    kind: Literal[
        "score",
        "score_label",
        "unscored",
        "low_confidence",
        "shadow_disagreement",
        "evaluator_disagreement",
        "feedback",
        "drift",
        "random",
    ] = Field("score", description="What it looks at.")
    name: Name | None = Field(
        None,
        description="What counts and reasons are kept under. Default: made of the rest. One of an endpoint.",
    )
    priority: int = Field(0, ge=-100, le=100, description="Cases of a higher priority are claimed first.")
    daily_budget: int | None = Field(
        None, ge=1, description="New cases per day (UTC). `random`: lowers the fraction instead."
    )
    sample: float = Field(1.0, gt=0, le=1, description="Share of the matches that are taken.")
    evaluator: str | None = Field(None, description="Name of the evaluator.")
    target: Side = Field("response", description="Which side the score is of.")
    above: float | None = Field(None, description="A score (of feedback: a value) over this makes a case.")
    below: float | None = Field(None, description="A score (of feedback: a value) under this makes a case.")
    label: str | list[str] | None = Field(
        None, description="The label of the score or of the feedback, or a list of labels."
    )
    reason: str | list[str] | None = Field(
        None, description="`unscored`: why it could not be scored, or a list. Default: whatever the reason."
    )
    between: list[float] | None = Field(
        None, min_length=2, max_length=2, description="`low_confidence`: from and to, as `[0.4, 0.6]`."
    )
    similarity_below: float | None = Field(
        None,
        gt=0,
        le=1,
        description="`shadow_disagreement` without an evaluator: the texts are less alike than this. Default 0.5.",
    )
    differs_by: float | None = Field(
        None,
        ge=0,
        description="`shadow_disagreement` with an evaluator: its scores differ by more than this.",
    )
    evaluators: list[RelabelBoundSettings] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="`evaluator_disagreement`: the two, each with its threshold.",
    )
    feedback: str | None = Field(None, description="`feedback`: its name, as the application sends it.")
    column: str | None = Field(None, description="`drift`: only of this column.")
    granularity: str | None = Field(None, description="`drift`: only of windows of this length, as `1 hour`.")
    slice: str | None = Field(None, description="`drift`: only of slices by this key, as `variant`.")
    alpha: float = Field(0.05, gt=0, lt=1, description="`drift`: the level of significance.")
    min_effect: float = Field(0.1, ge=0, le=1, description="`drift`: the smallest effect.")
    per_window: int = Field(20, ge=1, description="`drift`: records of each window and slice.")
    fraction: float | None = Field(
        None, gt=0, le=1, description="`random`: the share of the answered records that is drawn."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        must, may = _OPTIONS[self.kind]
        for name in sorted(self.model_fields_set - _COMMON):
            if name not in (*must, *may):
                raise ValueError(f"{name}: a rule of kind '{self.kind}' has none. Leave it out.")
        for name in must:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: a rule of kind '{self.kind}' needs it.")
        if self.kind == "score" and (self.above is None) == (self.below is None):
            raise ValueError("above: give either 'above' or 'below', not both and not none.")
        if self.kind == "shadow_disagreement" and self.evaluator is None and self.differs_by is not None:
            raise ValueError("evaluator: 'differs_by' is of the scores of an evaluator. Name it.")
        if self.kind == "shadow_disagreement" and self.evaluator is not None:
            if self.similarity_below is not None:
                raise ValueError("similarity_below: is for a rule without an evaluator. Write a second rule.")
            if self.differs_by is None:
                raise ValueError("differs_by: say by how much the scores of the two must differ.")
        for index, each in enumerate(self.evaluators or ()):
            if (each.above is None) == (each.below is None):
                raise ValueError(f"evaluators[{index}].above: give either 'above' or 'below'.")
        try:
            self.build()
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> CaseRule:
        """The rule. Raises :class:`~servelens.errors.Invalid`."""
        common: dict[str, Any] = {
            "name": self.name or "",
            "priority": self.priority,
            "daily_budget": self.daily_budget,
            "sample": self.sample,
        }
        evaluator = self.evaluator or ""
        match self.kind:
            case "score":
                return Rule(evaluator, self.target, self.above, self.below, **common)
            case "score_label":
                return LabelRule(evaluator, _words(self.label), self.target, **common)
            case "unscored":
                return UnscoredRule(evaluator, _words(self.reason), self.target, **common)
            case "low_confidence":
                low, high = self.between or (0.0, 0.0)
                return LowConfidenceRule(evaluator, low, high, self.target, **common)
            case "shadow_disagreement":
                if self.evaluator is not None:
                    return ShadowScoreRule(self.evaluator, self.differs_by or 0.0, self.target, **common)
                below = 0.5 if self.similarity_below is None else self.similarity_below
                return ShadowTextRule(below, **common)
            case "evaluator_disagreement":
                first, second = (each.build() for each in self.evaluators or ())
                return EvaluatorDisagreementRule(first, second, **common)
            case "feedback":
                labels = _words(self.label)
                return FeedbackRule(self.feedback or "", self.above, self.below, labels, **common)
            case "drift":
                return DriftRule(
                    self.column,
                    self.granularity,
                    self.slice,
                    self.alpha,
                    self.min_effect,
                    self.per_window,
                    **common,
                )
            case "random":
                return RandomRule(self.fraction or 0.0, **common)


class AlikenessSettings(Section):
    """How alike cases may be."""

    near_duplicate: float | None = Field(
        0.95,
        gt=0,
        le=1,
        description="A record joins an earlier case when their cosine is this or more; `null`: only the same text does.",
    )
    cluster: float = Field(0.8, gt=0, le=1, description="Records with this cosine or more are one cluster.")
    max_per_cluster: int | None = Field(
        20, ge=1, description="New cases of one cluster per day (UTC); `null`: any number."
    )
    days: int = Field(7, ge=1, le=365, description="How long a case is compared with.")


class SuppressionSettings(AlikenessSettings):
    """How alike the cases of an endpoint may be: one of many records that say the same is enough."""

    endpoints: dict[str, AlikenessSettings] = Field(
        default_factory=dict, description="The same keys by the name of an endpoint, where it is to differ."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for place, build in [
            ("", self.of("")),
            *((f"endpoints.{name}.", self.of(name)) for name in self.endpoints),
        ]:
            try:
                Suppression(**build)
            except Invalid as error:
                raise ValueError(f"{place}{error}") from error
        return self

    def of(self, endpoint: str) -> dict[str, Any]:
        """What :class:`~relabel.selection.suppression.Suppression` is made of for ``endpoint``."""
        chosen = {name: getattr(self, name) for name in AlikenessSettings.model_fields}
        own = self.endpoints.get(endpoint)
        if own is not None:
            chosen |= {name: getattr(own, name) for name in own.model_fields_set}
        return chosen


class _OfEndpoint(Section):
    endpoint: str = Field(description="Name of the endpoint.")


class LabelSchemaSettings(SchemaShape, _OfEndpoint):
    """What annotators are asked about the cases of an endpoint ([label schemas](label-schemas.md))."""

    # A number may come from the environment, as text.
    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _builds(self) -> Self:
        try:
            self.build()
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> LabelSchema:
        """The schema. Raises :class:`~servelens.errors.Invalid`."""
        return built(self)


class RelabelSettings(Section):
    """The queue of cases for people."""

    every_s: Positive = Field(15.0, description="Seconds between two looks at what is new.")
    lease_s: Positive = Field(900.0, description="Seconds that a claimed case is kept for its annotator.")
    rules: list[RelabelRuleSettings] = Field(default_factory=list, description="What becomes a case.")
    suppression: SuppressionSettings = Field(
        default_factory=lambda: SuppressionSettings(), description="How alike cases may be."
    )
    schemas: list[LabelSchemaSettings] = Field(
        default_factory=list,
        description="What annotators are asked, per endpoint. Default: good or bad, a corrected answer, tags. A schema that is "
        "changed by API stays until its block here changes.",
    )

    @model_validator(mode="after")
    def _one_schema_each(self) -> Self:
        refuse_duplicates([each.endpoint for each in self.schemas], "schemas", "endpoint")
        return self

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        places: dict[str, list[int]] = {}
        for index, rule in enumerate(self.rules):
            places.setdefault(rule.endpoint, []).append(index)
        for of_endpoint in places.values():
            seen: list[CaseRule] = []
            for index in of_endpoint:
                seen.append(self.rules[index].build())
                try:
                    check_names(tuple(seen))
                except Invalid as error:
                    raise ValueError(f"rules[{index}].name: {error.message}. {error.fix}") from error
        return self


def _words(given: str | list[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)
