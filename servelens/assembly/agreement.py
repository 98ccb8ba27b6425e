"""An evaluator against the decided labels of the relabeling queue.

*Positive* is what the evaluator should find: one answer of the endpoint's label schema, by default an answer rated bad. Of a
case only its newest decision counts, and gold cases are left out (:mod:`relabel.human_labels`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import polars as pl
from sqlalchemy import func, select

from collector.catalog import Catalog, EndpointTables
from evaluators.agreement.report import Agreement, Direction, agreement
from relabel.agreement.kept import KeptReports
from relabel.agreement.schema_at import schema_at
from relabel.case import CaseState, ReasonKind
from relabel.human_labels import Choice, HumanLabel, human_labels, sampled_records
from relabel.label_schema import FieldType, LabelSchema, Schemas, default_schema
from relabel.models import CaseRow, ReasonRow, RuleDayRow
from relabel.positive import DEFAULT, Positive, parse_positive
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Invalid, Missing, Unavailable
from servelens.settings import Settings

_ID = "databricks_request_id"
_TOLERATED: Final = 0.1
"""The share of what is flagged that may be missing among its labeled cases: precision is off by no more than that."""
_UNDECIDED: Final = (CaseState.OPEN, CaseState.CLAIMED, CaseState.DISPUTED, CaseState.ADJUDICATING)
Target: TypeAlias = Literal["request", "response"]


@dataclass(frozen=True, slots=True)
class MeasuredAgreement:
    """``chosen``: compared records that became cases by this evaluator's own score. ``unanswered``: decided labels that do
    not answer what ``positive`` asks. ``borrowed``: sampled records whose label is that of nearly the same record.
    ``versions``: the versions of the evaluator that gave the scores.
    """

    endpoint: str
    evaluator: str
    target: str
    positive: Positive
    chosen: int
    unanswered: int
    borrowed: int
    versions: tuple[str, ...]
    found: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "endpoint": self.endpoint,
            "evaluator": self.evaluator,
            "target": self.target,
            "asked": str(self.positive),
            "positive_means": self.positive.words,
            "chosen_by_evaluator": self.chosen,
            "unanswered": self.unanswered,
            "borrowed": self.borrowed,
            "evaluator_versions": list(self.versions),
            **self.found.to_dict(),
        }


class EvaluatorAgreements:
    """Measures evaluators for the console; what was measured is kept until the next decision, for a minute at most."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        catalog: Catalog,
        clock: Clock,
        schemas: Schemas | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._catalog = catalog
        self._schemas = schemas
        self._kept: KeptReports[Mapping[str, Any]] = KeptReports(database, clock)

    def choices(self, endpoint: str) -> tuple[tuple[str, Target], ...]:
        """The evaluators and targets of which a relabeling rule of ``endpoint`` has a threshold, each once."""
        found: dict[tuple[str, Target], None] = {}
        for rule in self._settings.relabel.rules:
            has_threshold = rule.above is not None or rule.below is not None
            if rule.endpoint == endpoint and rule.evaluator is not None and has_threshold:
                found[rule.evaluator, rule.target] = None
        return tuple(found)

    def __call__(
        self,
        endpoint: str,
        evaluator: str,
        *,
        target: Target = "response",
        positive: str | None = None,
        above: float | None = None,
        below: float | None = None,
        precision: float | None = None,
    ) -> Mapping[str, Any]:
        """:func:`measured_agreement` as plain data."""
        return self._kept.get(
            (endpoint, evaluator, target, positive, above, below, precision),
            lambda: measured_agreement(
                self._settings,
                self._database,
                self._catalog.tables(endpoint),
                endpoint,
                evaluator,
                target=target,
                above=above,
                below=below,
                positive=positive,
                wanted_precision=precision,
                schemas=self._schemas,
            ).to_dict(),
        )


def measured_agreement(
    settings: Settings,
    database: Database,
    tables: EndpointTables,
    endpoint: str,
    evaluator: str,
    *,
    target: Target = "response",
    above: float | None = None,
    below: float | None = None,
    tag: str | None = None,
    positive: str | None = None,
    wanted_precision: float | None = None,
    schemas: Schemas | None = None,
) -> MeasuredAgreement:
    """Compare the scores of ``evaluator`` with people's labels; ``above`` or ``below`` is the threshold, by default that of
    the relabeling rule. ``positive`` is as :func:`~relabel.positive.parse_positive` reads it; ``tag`` is short for the
    schema's tags. Without ``schemas`` every label is of the default schema.

    Raises :class:`~servelens.errors.Invalid` without a threshold or for an answer that the schema does not have,
    :class:`~servelens.errors.Missing` when there is no label, and what reading raises.
    """
    direction, threshold = _threshold(settings, endpoint, evaluator, target, above, below)
    current = default_schema() if schemas is None else schemas.current(endpoint)
    asked = _positive(positive, tag, current)
    labels = list(human_labels(database, endpoint))
    if not labels:
        raise Missing(
            f"nobody has labeled a case of {endpoint!r} yet",
            field="endpoint",
            fix="Label cases on the console's Relabel page first.",
        )
    known = {
        version: schema_at(schemas, endpoint, version) for version in {each.schema_version for each in labels}
    }
    said = {each.case_id: _said(asked, each, known) for each in labels}
    own = {
        each.case_id: [choice for choice in each.choices if _is_own(choice, evaluator, target, direction)]
        for each in labels
    }
    fair = {
        case: any(_reaches(choice, threshold, direction) for choice in choices)
        for case, choices in own.items()
    }
    frame = pl.DataFrame(
        {
            _ID: [each.databricks_request_id for each in labels],
            "positive": [said[each.case_id] for each in labels],
            "chosen": [fair[each.case_id] for each in labels],
        },
        schema={_ID: pl.String, "positive": pl.Boolean, "chosen": pl.Boolean},
    )
    sampled = list(sampled_records(database, endpoint))
    sample = pl.DataFrame(
        {
            _ID: [each.databricks_request_id for each in sampled],
            "share": [each.share for each in sampled],
            "positive": [said.get(each.case_id) for each in sampled],
        },
        schema={_ID: pl.String, "share": pl.Float64, "positive": pl.Boolean},
    )
    ids = list(dict.fromkeys([*frame[_ID], *sample[_ID]]))
    scores = _scores(tables, evaluator, target, ids)
    found = agreement(
        frame,
        scores,
        direction=direction,
        threshold=threshold,
        wanted_precision=wanted_precision,
        sample=sample,
        unfair=_unfair(database, endpoint, own, threshold, direction),
    )
    compared = scores.filter(pl.col("score").is_finite())
    chosen = {
        each.databricks_request_id
        for each in labels
        if any(choice.evaluator == evaluator for choice in each.choices)
    }
    answered = {each.databricks_request_id for each in labels if said[each.case_id] is not None}
    return MeasuredAgreement(
        endpoint=endpoint,
        evaluator=evaluator,
        target=target,
        positive=asked,
        chosen=len(chosen & answered & set(compared[_ID])),
        unanswered=sum(each is None for each in said.values()),
        borrowed=sum(each.is_near and said.get(each.case_id) is not None for each in sampled),
        versions=tuple(compared["evaluator_version"].drop_nulls().unique().sort()),
        found=found,
    )


def _positive(positive: str | None, tag: str | None, schema: LabelSchema) -> Positive:
    if positive is not None and tag is not None:
        raise Invalid("both are given", field="--positive, --tag", fix="Give the one that people's yes is.")
    if tag is None:
        return parse_positive(positive or DEFAULT, schema)
    field = schema.of_type(FieldType.TAGS)
    if field is None:
        raise Invalid(
            "the label schema has no tags", field="--tag", fix="Give --positive FIELD=VALUE of the schema."
        )
    return parse_positive(f"{field.name}={tag}", schema)


def _said(asked: Positive, label: HumanLabel, schemas: Mapping[int, LabelSchema | None]) -> bool | None:
    schema = schemas[label.schema_version]
    return None if schema is None else asked.of(label, schema)


def _is_own(choice: Choice, evaluator: str, target: str, direction: Direction) -> bool:
    return (choice.kind, choice.evaluator, choice.target, choice.direction) == (
        ReasonKind.SCORE,
        evaluator,
        target,
        direction,
    )


def _reaches(choice: Choice, threshold: float, direction: Direction) -> bool:
    """Whether the rule takes all scores past ``threshold``."""
    if choice.threshold is None:
        return False
    return choice.threshold <= threshold if direction == "above" else choice.threshold >= threshold


def _unfair(
    database: Database,
    endpoint: str,
    own: Mapping[int, list[Choice]],
    threshold: float,
    direction: Direction,
) -> str | None:
    """Why the evaluator's own cases are not all, or a fair part, of what is past the threshold; ``None`` if they are."""
    choices = [choice for each in own.values() for choice in each]
    if not choices:
        return "no labeled case was chosen by a rule on this score"
    reaching = {choice.rule for choice in choices if _reaches(choice, threshold, direction)}
    if not reaching:
        limits = ", ".join(sorted({f"{each.threshold:g}" for each in choices if each.threshold is not None}))
        return f"its rule only takes scores {direction} {limits}"
    counts = (
        RuleDayRow.over_budget,
        RuleDayRow.over_cluster,
        RuleDayRow.cases,
        RuleDayRow.repeated,
    )
    query = select(*(func.sum(count) for count in counts)).where(
        RuleDayRow.endpoint == endpoint, RuleDayRow.rule.in_(reaching)
    )
    chosen = (
        select(ReasonRow.case_id)
        .join(CaseRow, CaseRow.id == ReasonRow.case_id)
        .where(CaseRow.endpoint == endpoint, ReasonRow.rule.in_(reaching))
        .distinct()
    )
    undecided = select(func.count()).select_from(chosen.where(CaseRow.state.in_(_UNDECIDED)).subquery())
    with database.session(read_only=True) as session:
        over_budget, over_cluster, cases, repeated = (count or 0 for count in session.execute(query).one())
        waiting = session.scalar(undecided) or 0
        every = session.scalar(select(func.count()).select_from(chosen.subquery())) or 0
    if over_budget or over_cluster:
        return (
            f"{over_budget + over_cluster} flagged records made no case, over the daily budget or too many of a kind: "
            "which ones did was no accident"
        )
    if repeated > _TOLERATED * (cases + repeated):
        return f"{repeated} flagged records say what another case says, and a case counts once"
    if waiting > _TOLERATED * every:
        return f"{waiting} of its {every} cases have no label yet, and the most extreme are labeled first"
    return None


def _threshold(
    settings: Settings, endpoint: str, evaluator: str, target: str, above: float | None, below: float | None
) -> tuple[Direction, float]:
    if above is not None and below is not None:
        raise Invalid(
            "both 'above' and 'below' are given",
            field="above",
            fix="Give the one that makes a record suspicious.",
        )
    if above is None and below is None:
        for rule in settings.relabel.rules:
            is_its = (rule.endpoint, rule.evaluator, rule.target) == (endpoint, evaluator, target)
            if is_its and (rule.above is not None or rule.below is not None):
                above, below = rule.above, rule.below
                break
    for name, given in (("--above", above), ("--below", below)):
        if given is not None and not math.isfinite(given):
            raise Invalid(f"{given} is no threshold", field=name, fix="Give a finite number.")
    if above is not None:
        return "above", above
    if below is not None:
        return "below", below
    raise Invalid(
        f"no relabeling rule says which {evaluator} scores of {endpoint!r} are suspicious",
        field="above",
        fix="Give 'above', as 0.5, or 'below', as 3, where a low score is bad.",
    )


def _scores(tables: EndpointTables, evaluator: str, target: str, ids: list[str]) -> pl.DataFrame:
    """The newest score of each record."""
    rows = tables.scores.scan().filter(
        pl.col("evaluator") == evaluator, pl.col("target") == target, pl.col(_ID).is_in(ids)
    )
    try:
        found = rows.select(_ID, "score", "evaluator_version", "scored_at").collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the scores cannot be read: {error}", field=tables.scores.uri) from error
    return found.sort("scored_at", pl.col("score").is_not_null()).unique(_ID, keep="last")
