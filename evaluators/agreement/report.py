"""One evaluator against people: which records both have seen, and how far they agree.

Invariant: only records with a label and a score are compared; what has a label and no score is counted, never taken for a
no. With too few records, or when people said always the same, a measure is ``None`` and ``insufficient`` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import polars as pl

from evaluators.agreement.measures import (
    Decision,
    Estimate,
    Suggestion,
    best_threshold,
    brier,
    calibration_error,
    decision,
    kappa,
    roc_auc,
)
from evaluators.ground_truth.quality import Interval, wilson
from servelens.errors import Invalid

Direction: TypeAlias = Literal["above", "below"]

MIN_PAIRS: Final = 20


@dataclass(frozen=True, slots=True)
class Agreement:
    """``labeled`` records have a label of people, ``compared`` also a score, ``positive`` are those that people found positive,
    ``flagged`` those that the threshold finds. ``brier`` and ``calibration_error`` are of scores that are probabilities.
    """

    labeled: int
    compared: int
    unscored: int
    positive: int
    direction: Direction
    threshold: float | None
    flagged: int | None = None
    agreement: Estimate | None = None
    kappa: Estimate | None = None
    decision: Decision | None = None
    roc_auc: Estimate | None = None
    brier: float | None = None
    calibration_error: float | None = None
    suggestion: Suggestion | None = None
    wanted_precision: float | None = None
    insufficient: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def agreement(
    labels: pl.DataFrame,
    scores: pl.DataFrame,
    *,
    direction: Direction = "above",
    threshold: float | None = None,
    wanted_precision: float | None = None,
    min_pairs: int = MIN_PAIRS,
) -> Agreement:
    """Compare ``labels`` (``databricks_request_id``, ``positive`` BOOL) with ``scores`` (``databricks_request_id``, ``score``
    DOUBLE, null: unscored), each with one row a record. A score ``direction`` the ``threshold`` flags its record.

    Raises :class:`~servelens.errors.Invalid` when a record has two rows or an option is out of range.
    """
    for name, frame in (("labels", labels), ("scores", scores)):
        if frame["databricks_request_id"].is_duplicated().any():
            raise Invalid("a record has two rows", field=name, fix="Keep one, the newest.")
    if wanted_precision is not None and not 0 < wanted_precision <= 1:
        raise Invalid(
            f"{wanted_precision:g} is no precision", field="wanted_precision", fix="Use 0.9, for example."
        )
    known = labels.select("databricks_request_id", "positive").drop_nulls()
    pairs = known.join(scores, on="databricks_request_id", how="inner").filter(pl.col("score").is_finite())
    positive = pairs["positive"].to_numpy().astype(np.bool_)
    sign = 1.0 if direction == "above" else -1.0
    values = pairs["score"].cast(pl.Float64).to_numpy() * sign
    found = Agreement(
        labeled=len(known),
        compared=len(pairs),
        unscored=len(known) - len(pairs),
        positive=int(positive.sum()),
        direction=direction,
        threshold=threshold,
        wanted_precision=wanted_precision,
    )
    if len(pairs) < max(min_pairs, 1):
        return replace(
            found,
            insufficient=(f"{len(pairs)} records have a label and a score, and {min_pairs} are needed",),
        )
    insufficient = []
    if threshold is not None:
        flagged = values > threshold * sign
        equal = int(np.count_nonzero(flagged == positive))
        agreed = kappa(positive, flagged)
        if agreed is None:
            insufficient.append("kappa: people and the evaluator said always the same")
        found = replace(
            found,
            flagged=int(flagged.sum()),
            agreement=Estimate(equal / len(pairs), wilson(equal, len(pairs))),
            kappa=agreed,
            decision=decision(positive, flagged),
        )
    suggestion = best_threshold(positive, values, wanted_precision=wanted_precision)
    if 0 < found.positive < found.compared:
        if suggestion is None:
            insufficient.append(f"threshold: none has a precision of {wanted_precision:g} on these records")
    else:
        insufficient.append("ROC AUC and threshold: people said always the same")
    probable = direction == "above"
    return replace(
        found,
        roc_auc=roc_auc(positive, values),
        brier=brier(positive, values) if probable else None,
        calibration_error=calibration_error(positive, values) if probable else None,
        suggestion=None if suggestion is None else _turned(suggestion, sign),
        insufficient=tuple(insufficient),
    )


def _turned(suggestion: Suggestion, sign: float) -> Suggestion:
    """Thresholds in the evaluator's own direction again."""
    if sign > 0:
        return suggestion
    bounds = suggestion.interval
    return replace(
        suggestion,
        threshold=-suggestion.threshold,
        interval=None if bounds is None else Interval(-bounds.high, -bounds.low),
    )
