from __future__ import annotations

import json

import polars as pl
import pytest

from evaluators.agreement.report import agreement
from servelens.errors import Invalid


def frames(positive: list[bool | None], scores: list[float | None]) -> tuple[pl.DataFrame, pl.DataFrame]:
    ids = [f"r{index}" for index in range(max(len(positive), len(scores)))]
    return (
        pl.DataFrame(
            {"databricks_request_id": ids[: len(positive)], "positive": positive},
            schema_overrides={"positive": pl.Boolean},
        ),
        pl.DataFrame(
            {"databricks_request_id": ids[: len(scores)], "score": scores},
            schema_overrides={"score": pl.Float64},
        ),
    )


def test_only_what_both_have_seen_is_compared() -> None:
    labels, scores = frames([True, False] * 15 + [None], [0.9, 0.1] * 13 + [None, float("nan")] + [0.5])
    found = agreement(labels, scores, threshold=0.5)
    assert (found.labeled, found.compared, found.unscored, found.positive, found.flagged) == (
        30,
        27,
        3,
        14,
        13,
    )
    assert found.agreement is not None
    assert found.agreement.value == 26 / 27
    json.dumps(found.to_dict(), allow_nan=False)


def test_low_scores_can_be_the_suspicious_ones() -> None:
    labels, scores = frames([True, False] * 15, [1.5, 4.0] * 15)
    found = agreement(labels, scores, direction="below", threshold=3)
    assert found.kappa is not None
    assert found.kappa.value == 1.0
    assert found.roc_auc is not None
    assert found.roc_auc.value == 1.0
    assert found.suggestion is not None
    assert found.suggestion.threshold == 2.75
    assert (found.brier, found.calibration_error) == (None, None)
    turned = agreement(labels, scores, direction="above", threshold=3)
    assert turned.kappa is not None
    assert turned.kappa.value == -1.0


@pytest.mark.parametrize(
    ("positive", "scores", "message"),
    [
        ([], [], "0 records have a label and a score, and 20 are needed"),
        ([True, False, True], [0.1, 0.2, 0.3], "3 records"),
        ([True] * 30, [None] * 30, "0 records"),
        ([True] * 30, [0.9] * 30, "people said always the same"),
    ],
)
def test_too_little_is_insufficient(positive: list[bool], scores: list[float | None], message: str) -> None:
    found = agreement(*frames(list(positive), scores), threshold=0.5)
    assert any(message in reason for reason in found.insufficient)
    assert found.kappa is None
    assert found.suggestion is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_precision_that_no_threshold_has() -> None:
    labels, scores = frames([False, True, False] * 10, [0.9, 0.5, 0.1] * 10)
    found = agreement(labels, scores, threshold=0.5, wanted_precision=0.95)
    assert found.suggestion is None
    assert "none has a precision of 0.95" in found.insufficient[0]


def test_without_a_threshold_the_order_alone_is_measured() -> None:
    labels, scores = frames([True, False] * 15, [90.0, 10.0] * 15)
    found = agreement(labels, scores)
    assert (found.flagged, found.kappa, found.brier) == (None, None, None)
    assert found.suggestion is not None


def test_wrong_input_is_named() -> None:
    labels, scores = frames([True, False], [0.1, 0.2])
    with pytest.raises(Invalid, match="scores: a record has two rows"):
        agreement(labels, pl.concat([scores, scores]))
    with pytest.raises(Invalid, match="wanted_precision"):
        agreement(labels, scores, wanted_precision=90)
