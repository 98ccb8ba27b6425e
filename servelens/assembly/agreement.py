"""An evaluator against the labels of the relabeling queue.

People rate an answer good or bad, and may tag it. *Positive* is what the evaluator should find: an answer rated bad, or one
that has a tag. Where several people labeled a record, most of them decide; a tie is left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from collector.catalog import EndpointTables
from evaluators.agreement.report import Agreement, Direction, agreement
from relabel.human_labels import human_labels
from relabel.label import Rating
from servelens.database import Database
from servelens.errors import Invalid, Missing, Unavailable
from servelens.settings import Settings

_ID = "databricks_request_id"


@dataclass(frozen=True, slots=True)
class MeasuredAgreement:
    """``chosen``: compared records that became cases by this evaluator's own score. ``tied``: records on which as many people
    said yes as no. ``versions``: the versions of the evaluator that gave the scores.
    """

    endpoint: str
    evaluator: str
    target: str
    positive_means: str
    chosen: int
    tied: int
    versions: tuple[str, ...]
    found: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "endpoint": self.endpoint,
            "evaluator": self.evaluator,
            "target": self.target,
            "positive_means": self.positive_means,
            "chosen_by_evaluator": self.chosen,
            "tied": self.tied,
            "evaluator_versions": list(self.versions),
            **self.found.to_dict(),
        }


def measured_agreement(
    settings: Settings,
    database: Database,
    tables: EndpointTables,
    endpoint: str,
    evaluator: str,
    *,
    target: Literal["request", "response"] = "response",
    above: float | None = None,
    below: float | None = None,
    tag: str | None = None,
    wanted_precision: float | None = None,
) -> MeasuredAgreement:
    """Compare the scores of ``evaluator`` with people's labels; ``above`` or ``below`` is the threshold, by default that of
    the relabeling rule. Raises :class:`~servelens.errors.Invalid` without either, :class:`~servelens.errors.Missing` when
    there is no label, and what reading raises.
    """
    direction, threshold = _threshold(settings, endpoint, evaluator, target, above, below)
    votes: dict[str, list[bool]] = defaultdict(list)
    chosen: set[str] = set()
    for label in human_labels(database, endpoint):
        said = label.rating is Rating.BAD if tag is None else _has_tag(label.tags, tag)
        votes[label.databricks_request_id].append(said)
        if evaluator in label.evaluators:
            chosen.add(label.databricks_request_id)
    if not votes:
        raise Missing(
            f"nobody has labeled a case of {endpoint!r} yet",
            field="endpoint",
            fix="Label cases on the console's Relabel page first.",
        )
    decided = {name: sum(said) * 2 > len(said) for name, said in votes.items() if sum(said) * 2 != len(said)}
    labels = pl.DataFrame(
        {_ID: list(decided), "positive": list(decided.values())},
        schema={_ID: pl.String, "positive": pl.Boolean},
    )
    scores = _scores(tables, evaluator, target, list(decided))
    found = agreement(
        labels, scores, direction=direction, threshold=threshold, wanted_precision=wanted_precision
    )
    compared = scores.filter(pl.col("score").is_finite())
    return MeasuredAgreement(
        endpoint=endpoint,
        evaluator=evaluator,
        target=target,
        positive_means="rated bad" if tag is None else f"tagged {tag}",
        chosen=len(chosen & set(compared[_ID])),
        tied=len(votes) - len(decided),
        versions=tuple(compared["evaluator_version"].drop_nulls().unique().sort()),
        found=found,
    )


def _threshold(
    settings: Settings, endpoint: str, evaluator: str, target: str, above: float | None, below: float | None
) -> tuple[Direction, float]:
    if above is not None and below is not None:
        raise Invalid(
            "both are given", field="--above, --below", fix="Give the one that makes a record suspicious."
        )
    if above is None and below is None:
        for rule in settings.relabel.rules:
            of = (rule.endpoint, rule.kind, rule.evaluator, rule.target)
            if of == (endpoint, "score", evaluator, target):
                above, below = rule.above, rule.below
                break
    if above is not None:
        return "above", above
    if below is not None:
        return "below", below
    raise Invalid(
        f"no relabeling rule says which {evaluator} scores of {endpoint!r} are suspicious",
        field="--above, --below",
        fix="Give one: --above 0.5, or --below 3 where a low score is bad.",
    )


def _has_tag(tags: tuple[str, ...], tag: str) -> bool:
    return tag.casefold() in (each.casefold() for each in tags)


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
