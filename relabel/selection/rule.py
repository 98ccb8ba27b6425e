"""The rules that make a record a case, one class a kind; whoever reads the settings can build them, tables or not.

Invariant: a rule that was made means something: a threshold is a number, a share is more than nothing, a range is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from relabel.case import ReasonKind
from relabel.selection.bound import Bound, Direction, Side, check_one_side, check_target
from servelens.errors import Invalid

MAX_NAME_LENGTH: Final = 255
MANUAL: Final = "manual"
"""The rule by which people send records to the queue; no other is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRule:
    """What rules have in common.

    ``name`` is what reasons and counts are kept under; an empty one becomes :meth:`default_name`. ``daily_budget``: new
    cases per day (UTC). ``sample``: the share of the matches that are taken, decided by a hash of the request id.
    """

    kind: ClassVar[ReasonKind]

    name: str = ""
    priority: int = 0
    daily_budget: int | None = None
    sample: float = 1.0

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid`, naming the field, for a rule that means nothing."""
        if not self.name:
            object.__setattr__(self, "name", self.default_name()[:MAX_NAME_LENGTH])
        if self.name == MANUAL:
            raise Invalid(
                "what people send to the queue by hand is called so", field="name", fix="Use another name."
            )
        if len(self.name) > MAX_NAME_LENGTH:
            raise Invalid(
                f"it has {len(self.name)} characters", field="name", fix=f"Give at most {MAX_NAME_LENGTH}."
            )
        if self.daily_budget is not None and self.daily_budget < 1:
            raise Invalid(
                f"{self.daily_budget} cases a day are none",
                field="daily_budget",
                fix="Use 1 or more, or leave the rule out.",
            )
        _check_share(self.sample, "sample")

    def default_name(self) -> str:
        """The name where none is given."""
        return str(self.kind)

    @property
    def evaluators(self) -> tuple[str, ...]:
        """The evaluators whose scores it looks at."""
        return ()

    @property
    def direction(self) -> Direction | None:
        """Which side of the threshold makes a case."""
        return None

    @property
    def threshold(self) -> float | None:
        """The threshold, whichever side it is of."""
        return None


@dataclass(frozen=True, slots=True)
class Rule(CaseRule):
    """A score of ``evaluator`` on ``target`` over ``above`` (or under ``below``) makes a case."""

    kind = ReasonKind.SCORE

    evaluator: str
    target: Side = "response"
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid` unless there is one threshold, and it is a number."""
        check_target(self.target)
        check_one_side(self.above, self.below)
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        return f"{self.evaluator} {self.target} {self.direction}"

    @property
    def evaluators(self) -> tuple[str, ...]:
        return (self.evaluator,)

    @property
    def direction(self) -> Direction:
        return "below" if self.above is None else "above"

    @property
    def threshold(self) -> float:
        return self.bound.threshold

    @property
    def bound(self) -> Bound:
        """The score that makes a case."""
        return Bound(self.evaluator, self.target, self.above, self.below)


@dataclass(frozen=True, slots=True)
class LabelRule(CaseRule):
    """A score with one of these ``labels`` makes a case."""

    kind = ReasonKind.SCORE_LABEL

    evaluator: str
    labels: tuple[str, ...]
    target: Side = "response"

    def __post_init__(self) -> None:
        check_target(self.target)
        if not self.labels:
            raise Invalid("no label is named", field="label", fix="Name one or more.")
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        return f"{self.evaluator} {self.target} is {' or '.join(self.labels)}"

    @property
    def evaluators(self) -> tuple[str, ...]:
        return (self.evaluator,)


@dataclass(frozen=True, slots=True)
class UnscoredRule(CaseRule):
    """What the evaluator could not score makes a case, for one of these ``reasons`` or (none named) any."""

    kind = ReasonKind.UNSCORED

    evaluator: str
    reasons: tuple[str, ...] = ()
    target: Side = "response"

    def __post_init__(self) -> None:
        check_target(self.target)
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        why = f" {' or '.join(self.reasons)}" if self.reasons else ""
        return f"{self.evaluator} {self.target} unscored{why}"

    @property
    def evaluators(self) -> tuple[str, ...]:
        return (self.evaluator,)


@dataclass(frozen=True, slots=True)
class LowConfidenceRule(CaseRule):
    """A score from ``low`` to ``high`` (both included) makes a case: the evaluator is not sure."""

    kind = ReasonKind.LOW_CONFIDENCE

    evaluator: str
    low: float
    high: float
    target: Side = "response"

    def __post_init__(self) -> None:
        check_target(self.target)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise Invalid(
                f"{self.low} to {self.high} is no range",
                field="between",
                fix="Give two numbers, as [0.4, 0.6].",
            )
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        return f"{self.evaluator} {self.target} between {self.low:g} and {self.high:g}"

    @property
    def evaluators(self) -> tuple[str, ...]:
        return (self.evaluator,)


@dataclass(frozen=True, slots=True)
class ShadowTextRule(CaseRule):
    """An answer whose shadow said something else makes a case: their text similarity is under ``similarity_below``."""

    kind = ReasonKind.SHADOW_DISAGREEMENT

    similarity_below: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.similarity_below <= 1.0:
            raise Invalid(
                f"{self.similarity_below} is no similarity",
                field="similarity_below",
                fix="Use more than 0 (nothing in common) and at most 1 (the same text).",
            )
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        return "shadow says something else"

    @property
    def direction(self) -> Direction:
        return "below"

    @property
    def threshold(self) -> float:
        return self.similarity_below


@dataclass(frozen=True, slots=True)
class ShadowScoreRule(CaseRule):
    """An answer makes a case whose score differs from that of its shadow by more than ``differs_by``."""

    kind = ReasonKind.SHADOW_DISAGREEMENT

    evaluator: str
    differs_by: float
    target: Side = "response"

    def __post_init__(self) -> None:
        check_target(self.target)
        if not (math.isfinite(self.differs_by) and self.differs_by >= 0):
            raise Invalid(
                f"{self.differs_by} is no difference", field="differs_by", fix="Give a number of 0 or more."
            )
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        return f"{self.evaluator} {self.target} of shadow differs"

    @property
    def evaluators(self) -> tuple[str, ...]:
        return (self.evaluator,)


@dataclass(frozen=True, slots=True)
class EvaluatorDisagreementRule(CaseRule):
    """A record makes a case that one of two evaluators flags and the other, which scored it, does not."""

    kind = ReasonKind.EVALUATOR_DISAGREEMENT

    first: Bound
    second: Bound

    def __post_init__(self) -> None:
        same = (self.first.evaluator, self.first.target) == (self.second.evaluator, self.second.target)
        if same:
            raise Invalid(
                f"both are {self.first.evaluator} of the {self.first.target}",
                field="evaluators",
                fix="Name two different ones.",
            )
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        pair = f"{self.first.evaluator} {self.first.target} against {self.second.evaluator}"
        return f"{pair} {self.second.target}"

    @property
    def evaluators(self) -> tuple[str, ...]:
        return (self.first.evaluator, self.second.evaluator)


@dataclass(frozen=True, slots=True)
class DriftRule(CaseRule):
    """Of each window and slice in which a column drifted, ``per_window`` records make cases, drawn by their id.

    A column drifted when its adjusted p-value is at most ``alpha`` and its effect at least ``min_effect``. ``column``,
    ``granularity`` and ``slice_key`` narrow what is looked at.
    """

    kind = ReasonKind.DRIFT

    column: str | None = None
    granularity: str | None = None
    slice_key: str | None = None
    alpha: float = 0.05
    min_effect: float = 0.1
    per_window: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise Invalid(f"{self.alpha} is no level", field="alpha", fix="Use one between 0 and 1, as 0.05.")
        if not 0 <= self.min_effect <= 1:
            raise Invalid(f"{self.min_effect} is no effect", field="min_effect", fix="Use 0 to 1.")
        if self.per_window < 1:
            raise Invalid(f"{self.per_window} records are none", field="per_window", fix="Use 1 or more.")
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        return " ".join(word for word in ("drift", self.column, self.slice_key, self.granularity) if word)


@dataclass(frozen=True, slots=True)
class FeedbackRule(CaseRule):
    """Feedback of the name ``feedback`` makes a case, by its value (``above``, ``below``) or one of its ``labels``."""

    kind = ReasonKind.FEEDBACK

    feedback: str
    above: float | None = None
    below: float | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.feedback:
            raise Invalid("no feedback is named", field="feedback", fix="Name it, as in 'thumbs'.")
        if self.labels:
            if self.above is not None or self.below is not None:
                raise Invalid("there is a label already", field="label", fix="Give a label or a threshold.")
        elif self.above is None and self.below is None:
            raise Invalid(
                "nothing says which feedback makes a case",
                field="label",
                fix="Give 'label', 'above' or 'below'.",
            )
        else:
            check_one_side(self.above, self.below)
        CaseRule.__post_init__(self)

    def default_name(self) -> str:
        what = " or ".join(self.labels) if self.labels else f"{self.direction} {self.threshold:g}"
        return f"feedback {self.feedback} {what}"

    @property
    def direction(self) -> Direction | None:
        if self.labels:
            return None
        return "below" if self.above is None else "above"

    @property
    def threshold(self) -> float | None:
        return self.below if self.above is None else self.above


@dataclass(frozen=True, slots=True)
class RandomRule(CaseRule):
    """The control sample: this ``fraction`` of the answered records, whatever anything says of them.

    With a ``daily_budget`` the fraction of a day is lowered beforehand, by the traffic of the day before: a cap would
    leave out the end of busy days, and the sample would no longer stand for the traffic.
    """

    kind = ReasonKind.RANDOM

    fraction: float

    def __post_init__(self) -> None:
        _check_share(self.fraction, "fraction")
        if self.sample != 1.0:
            raise Invalid("it is a sample already", field="sample", fix="Lower 'fraction' instead.")
        CaseRule.__post_init__(self)


def check_names(rules: tuple[CaseRule, ...]) -> None:
    """Raise :class:`~servelens.errors.Invalid` when two rules of an endpoint have one name.

    Two thresholds of one score may: where both are passed, the rule of the higher priority is the reason.
    """
    seen: dict[str, CaseRule] = {}
    for index, rule in enumerate(rules):
        other = seen.setdefault(rule.name, rule)
        if other is rule or (_is_plain(other) and _is_plain(rule)):
            continue
        raise Invalid(
            f"there are two rules {rule.name!r} of this endpoint",
            field=f"rules[{index}].name",
            fix="Give each a name of its own.",
        )


def _is_plain(rule: CaseRule) -> bool:
    unnamed = isinstance(rule, Rule) and rule.name == rule.default_name()[:MAX_NAME_LENGTH]
    return unnamed and rule.daily_budget is None and rule.sample == 1.0


def _check_share(share: float, field: str) -> None:
    if not 0.0 < share <= 1.0:
        raise Invalid(f"{share} is no share", field=field, fix="Use more than 0 and at most 1.")
