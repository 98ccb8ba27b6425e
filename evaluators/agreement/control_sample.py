"""An evaluator's precision and recall on all traffic, from the random control sample.

Cases that an evaluator chose tell how often it is right when it flags a record, and nothing of the records that it does not
flag; so they tell its precision and cannot tell its recall. The control sample is drawn without looking at any score, each
record with a known probability, so both can be estimated from it, weighted by the inverse of that probability
(:mod:`evaluators.agreement.shares`).

Not all sampled records have been labeled yet, and those that are flagged as well tend to be labeled first. Invariant: the
labeled records of each side of the threshold stand for all sampled records of that side, whose scores are known; where a
side has sampled records and no label, what needs it is ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from evaluators.agreement.measures import Estimate, Flags, Scores
from evaluators.agreement.shares import Weights, weighted_share
from evaluators.ground_truth.quality import wilson
from servelens.errors import Invalid


@dataclass(frozen=True, slots=True)
class SampleAgreement:
    """``drawn`` sampled records, of which ``unscored`` have no score and ``waiting`` have one and no label yet; ``compared``
    have both. ``weighted``: whether they were drawn with different probabilities. ``prevalence``: the share of the traffic
    that people find positive; ``flag_rate``: that the evaluator flags.
    """

    drawn: int
    unscored: int
    waiting: int
    compared: int
    positive: int
    flagged: int | None
    weighted: bool
    prevalence: Estimate | None
    flag_rate: Estimate | None
    precision: Estimate | None
    recall: Estimate | None
    insufficient: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlaggedAgreement:
    """Cases that this evaluator's own rule chose and whose score is past the threshold. ``unfair`` says why their precision
    is not that of all flagged records, if it is not.
    """

    cases: int
    positive: int
    precision: Estimate | None
    unfair: str | None


@dataclass(frozen=True, slots=True)
class Combined:
    """The best that is known of each, and where it is from: ``flagged_cases`` or ``control_sample``."""

    precision: Estimate | None
    precision_from: str | None
    recall: Estimate | None
    recall_from: str | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """The labeled and scored records of the sample, with the weights that make them stand for the traffic."""

    positive: Flags
    scores: Scores
    weights: Weights


def sample_agreement(
    sample: pl.DataFrame, scores: pl.DataFrame, sign: float, threshold: float | None
) -> tuple[SampleAgreement, Sample]:
    """From ``sample`` (``databricks_request_id``, ``share`` the probability with which it was drawn, ``positive`` what people
    said, null while nobody has) and ``scores``; a score times ``sign`` over the threshold times ``sign`` flags its record.

    Raises :class:`~servelens.errors.Invalid` when a share is no probability.
    """
    if not sample.filter(~pl.col("share").is_between(0, 1, closed="right").fill_null(False)).is_empty():
        raise Invalid(
            "a record was drawn with no probability", field="share", fix="Give one over 0 and up to 1."
        )
    scored = sample.join(scores, on="databricks_request_id", how="inner").filter(pl.col("score").is_finite())
    values = scored["score"].cast(pl.Float64).to_numpy() * sign
    chances = 1 / scored["share"].to_numpy()
    flagged = np.zeros(len(scored), dtype=np.bool_) if threshold is None else values > threshold * sign
    is_labeled = scored["positive"].is_not_null().to_numpy()
    weights, mute = _standing_for_all(chances, flagged, is_labeled)
    positive = scored["positive"].fill_null(False).to_numpy().astype(np.bool_)[is_labeled]
    known = Sample(positive, values[is_labeled], weights[is_labeled])
    said = flagged[is_labeled]
    insufficient = [f"{side} sampled records have no label yet" for side, is_mute in mute.items() if is_mute]
    complete = not insufficient and len(positive) > 0
    recall = weighted_share(said[positive], known.weights[positive]) if complete else None
    precision = None if mute["flagged"] else weighted_share(positive[said], known.weights[said])
    if len(positive) == 0:
        insufficient.append("no sampled record has a label and a score")
    elif threshold is not None:
        if complete and recall is None:
            insufficient.append("recall: people found no sampled record positive")
        if not mute["flagged"] and precision is None:
            insufficient.append("precision: the evaluator flags no labeled record of the sample")
    found = SampleAgreement(
        drawn=len(sample),
        unscored=len(sample) - len(scored),
        waiting=len(scored) - len(positive),
        compared=len(positive),
        positive=int(positive.sum()),
        flagged=None if threshold is None else int(said.sum()),
        weighted=bool(len(chances)) and not np.allclose(chances, chances[0]),
        prevalence=weighted_share(positive, known.weights) if complete else None,
        flag_rate=None if threshold is None else weighted_share(flagged, chances),
        precision=None if threshold is None else precision,
        recall=None if threshold is None else recall,
        insufficient=tuple(insufficient),
    )
    return found, known


def flagged_agreement(positive: Flags, unfair: str | None) -> FlaggedAgreement:
    """From what people found of the cases that the evaluator chose."""
    count, hits = len(positive), int(np.count_nonzero(positive))
    precision = Estimate(hits / count, wilson(hits, count)) if count else None
    return FlaggedAgreement(count, hits, precision, unfair)


def combined(
    sample: SampleAgreement | None, flagged: FlaggedAgreement | None, min_cases: int
) -> Combined | None:
    """Recall from the sample. Precision from the flagged cases, of which there are more, where there are ``min_cases`` and
    nothing makes them unfair; from the sample otherwise.
    """
    if sample is None and flagged is None:
        return None
    recall = None if sample is None else sample.recall
    precision, source = (None, None) if sample is None else (sample.precision, "control_sample")
    if flagged is not None and flagged.unfair is None and flagged.cases >= min_cases:
        precision, source = flagged.precision, "flagged_cases"
    f1 = None
    if precision is not None and recall is not None and precision.value + recall.value > 0:
        f1 = 2 * precision.value * recall.value / (precision.value + recall.value)
    return Combined(
        precision=precision,
        precision_from=source if precision is not None else None,
        recall=recall,
        recall_from=None if recall is None else "control_sample",
        f1=f1,
    )


def _standing_for_all(chances: Weights, flagged: Flags, is_labeled: Flags) -> tuple[Weights, dict[str, bool]]:
    """The weights of the labeled records when they stand for those of their side that wait, and which sides are mute."""
    weights = chances.copy()
    mute = {}
    for name, side in (("flagged", flagged), ("unflagged", ~flagged)):
        labeled = float(chances[side & is_labeled].sum())
        mute[name] = bool(side.any()) and labeled == 0
        if labeled:
            weights[side] *= float(chances[side].sum()) / labeled
    return weights, mute
