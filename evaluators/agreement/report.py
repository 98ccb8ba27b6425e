"""One evaluator against people: which records both have seen, and how far they agree.

What is measured on all labeled cases is of how cases were chosen as much as of the evaluator; what holds for the traffic is
under ``sample``, ``flagged_cases`` and ``combined`` (:mod:`evaluators.agreement.control_sample`). Invariant: only records with
a label and a score are compared; what has a label and no score is counted, never taken for a no. With too few records, or
when people said always the same, a measure is ``None`` and ``insufficient`` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import polars as pl

from evaluators.agreement.control_sample import (
    Combined,
    FlaggedAgreement,
    Sample,
    SampleAgreement,
    combined,
    flagged_agreement,
    sample_agreement,
)
from evaluators.agreement.curves import ReliabilityBin, ThresholdPoint, by_threshold, reliability
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

Basis: TypeAlias = Literal["control_sample", "all_cases"]

MIN_PAIRS: Final = 20
MIN_EACH: Final = 10
"""Records that people found positive, and that they did not, from which on a threshold is suggested."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """``labeled`` records have a label of people, ``compared`` also a score, ``positive`` are those that people found positive,
    ``flagged`` those that the threshold finds. ``brier`` and ``calibration_error`` are of scores that are probabilities.

    ``suggestion``, ``reliability`` and ``curve`` are of the control sample where that has enough labels, else of all cases,
    which ``basis`` tells: those of all cases are biased towards what evaluators chose.
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
    basis: Basis | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    curve: tuple[ThresholdPoint, ...] = ()
    sample: SampleAgreement | None = None
    flagged_cases: FlaggedAgreement | None = None
    combined: Combined | None = None

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
    sample: pl.DataFrame | None = None,
    unfair: str | None = None,
) -> Agreement:
    """Compare ``labels`` (``databricks_request_id``, ``positive`` BOOL) with ``scores`` (``databricks_request_id``, ``score``
    DOUBLE, null: unscored), each with one row a record. A score ``direction`` the ``threshold`` flags its record.

    ``labels`` may have ``chosen`` BOOL: the evaluator's own rule made the record a case; ``unfair`` says why such cases are no
    fair choice of what is past the threshold, if they are not. ``sample`` is the control sample, as
    :func:`~evaluators.agreement.control_sample.sample_agreement` takes it, with the records that nobody has labeled.

    Raises :class:`~servelens.errors.Invalid` when a record has two rows or an option is out of range.
    """
    frames = (
        {"labels": labels, "scores": scores}
        if sample is None
        else {"labels": labels, "scores": scores, "sample": sample}
    )
    for name, frame in frames.items():
        if frame["databricks_request_id"].is_duplicated().any():
            raise Invalid("a record has two rows", field=name, fix="Keep one, the newest.")
    if wanted_precision is not None and not 0 < wanted_precision <= 1:
        raise Invalid(
            f"{wanted_precision:g} is no precision", field="wanted_precision", fix="Use 0.9, for example."
        )
    known = labels.drop_nulls(["databricks_request_id", "positive"])
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
    drawn = None
    if sample is not None and len(sample):
        seen, drawn = sample_agreement(sample, scores, sign, threshold)
        found = replace(found, sample=seen)
    if threshold is not None:
        if "chosen" in pairs.columns:
            chosen = pairs["chosen"].to_numpy().astype(np.bool_) & (values > threshold * sign)
            found = replace(found, flagged_cases=flagged_agreement(positive[chosen], unfair))
        found = replace(found, combined=combined(found.sample, found.flagged_cases, min_pairs))
    found = _with_curves(found, Sample(positive, values, np.ones(len(pairs))), drawn, sign, min_pairs)
    if len(pairs) < max(min_pairs, 1):
        few = f"{len(pairs)} records have a label and a score, and {min_pairs} are needed"
        return replace(found, insufficient=(few, *found.insufficient))
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
    if not 0 < found.positive < found.compared:
        insufficient.append("ROC AUC: people said always the same")
    probable = direction == "above"
    return replace(
        found,
        roc_auc=roc_auc(positive, values),
        brier=brier(positive, values) if probable else None,
        calibration_error=calibration_error(positive, values) if probable else None,
        insufficient=(*insufficient, *found.insufficient),
    )


def _with_curves(
    found: Agreement, cases: Sample, drawn: Sample | None, sign: float, min_pairs: int
) -> Agreement:
    """With what is shown by threshold, from the control sample if it has enough labels, else from all cases if they do."""
    if (
        drawn is not None
        and _enough(drawn, min_pairs)
        and found.sample is not None
        and not _mute(found.sample)
    ):
        basis: Basis = "control_sample"
        used = drawn
    elif _enough(cases, min_pairs):
        basis, used = "all_cases", cases
    else:
        yes, no = int(cases.positive.sum()), int((~cases.positive).sum())
        reason = f"threshold: people said yes to {yes} and no to {no}; {MIN_EACH} of each are needed"
        return replace(found, insufficient=(reason,)) if len(cases.positive) >= min_pairs else found
    suggestion = best_threshold(
        used.positive, used.scores, weights=used.weights, wanted_precision=found.wanted_precision
    )
    reason = f"threshold: none has a precision of {found.wanted_precision or 0:g} on these records"
    return replace(
        found,
        basis=basis,
        suggestion=None if suggestion is None else _turned(suggestion, sign),
        reliability=reliability(used.positive, used.scores, used.weights) if sign > 0 else (),
        curve=_turned_curve(by_threshold(used.positive, used.scores, used.weights), sign),
        insufficient=() if suggestion is not None else (reason,),
    )


def _enough(sample: Sample, min_pairs: int) -> bool:
    yes = int(np.count_nonzero(sample.positive))
    return len(sample.positive) >= min_pairs and min(yes, len(sample.positive) - yes) >= MIN_EACH


def _mute(sample: SampleAgreement) -> bool:
    """Whether one side of the threshold has no label, so that the labeled records cannot stand for the sample."""
    return sample.prevalence is None


def _turned_curve(curve: tuple[ThresholdPoint, ...], sign: float) -> tuple[ThresholdPoint, ...]:
    return curve if sign > 0 else tuple(replace(point, threshold=-point.threshold) for point in curve[::-1])


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
