from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments.experiment import Experiment, Variant
from experiments.measurement.pairs import PairCounts, PairedMetric, Pairs, measure_pairs
from experiments.statistics.statistic import Moments
from tests.unit.experiments.records import experiment, payload, payload_frame, score, score_frame

SHADOW = {
    "control": Variant("champion", "smol"),
    "treatments": (Variant("challenger", "smol-hot"),),
    "kind": "shadow",
}
_numbers = count()


def _definition(name: str, **changes: Any) -> Experiment:
    return experiment(**{**SHADOW, "primary_metric": name, "secondary_metrics": (), **changes})


def _original(unit: str | None = "ann", **changes: Any) -> dict[str, Any]:
    return payload(unit, None, **{"experiment": None, "propensity": None, **changes})


def _mirror(of: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return payload(
        of["unit"],
        None,
        **{
            "experiment": None,
            "is_shadow": True,
            "shadow_of": of["databricks_request_id"],
            "served_entity": "smol-hot",
            "propensity": 1.0,
            **changes,
        },
    )


def _pairs(
    rows: Sequence[dict[str, Any]],
    scores: Sequence[dict[str, Any]] = (),
    name: str = "output_tokens",
    **changes: Any,
) -> Pairs:
    (found,) = measure_pairs(payload_frame(rows), score_frame(scores), _definition(name, **changes))
    return found


def _metric(
    rows: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]] = (), name: str = ""
) -> PairedMetric:
    (found,) = _pairs(rows, scores, name).metrics
    return found


def test_differences_within_pairs_against_scipys_paired_t() -> None:
    rng = np.random.default_rng(8)
    before, after = rng.lognormal(5, 1, 80).astype(int) + 1, rng.lognormal(5, 1, 80).astype(int) + 1
    rows = []
    for number, (one, other) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        original = _original(f"user-{number}", execution_duration_ms=one)
        rows += [original, _mirror(original, execution_duration_ms=other)]
    found = _metric(rows, name="latency_ms").differences
    expected = ttest_rel(np.log(after), np.log(before))
    assert found.mean / found.variance_of_mean() ** 0.5 == pytest.approx(expected.statistic)
    assert found.units == 80


def test_pairs_of_a_unit_are_summed_before_they_are_squared() -> None:
    rows = []
    for unit, one, other in (("ann", 10, 13), ("ann", 10, 14), ("bob", 10, 9), (None, 5, 6), (None, 5, 6)):
        original = _original(unit, output_tokens=one)
        rows += [original, _mirror(original, output_tokens=other)]
    assert _metric(rows, name="output_tokens").differences == Moments(4, 5, 8, 7, 15, 52)
    by_request = _pairs(rows, unit="request").metrics[0].differences
    assert by_request == Moments(5, 5, 8, 5, 8, 28)


def test_rates_are_counted_by_pair_and_failures_too() -> None:
    failed = {"status_code": 500, "error_type": "upstream_status"}
    rows = []
    for one, other in (({}, {}), ({}, {}), ({}, failed), (failed, {}), (failed, failed)):
        original = _original(**one)
        rows += [original, _mirror(original, **other)]
    found = _pairs(rows, name="success_rate")
    assert found.metrics[0].counts == PairCounts(both=2, only_control=1, only_treatment=1, neither=1)
    assert found.without_answer == {"failed": 2}
    tokens = _metric(rows, name="output_tokens")
    assert tokens.counts is None
    assert tokens.differences.records == 2
    assert tokens.excluded == {"control": {"no_whole_answer": 2}, "treatment": {"no_whole_answer": 2}}


def test_originals_without_a_mirror_are_counted_by_what_is_known_of_them() -> None:
    rows = [_original() for _ in range(4)]
    mirrored = _pairs([*rows, _mirror(rows[0])])
    assert (mirrored.originals, mirrored.mirrored) == (4, 1)
    assert mirrored.without_answer == {"dropped": 3}
    share = _pairs([*rows, _mirror(rows[0], propensity=0.25)])
    assert share.without_answer == {"not_mirrored": 3}


def test_only_the_controls_answers_and_the_treatments_mirrors_are_paired() -> None:
    original, other = _original(), _original(served_entity="another")
    faulty = _original(status_code=400, error_type="invalid_request")
    rows = [
        original,
        other,
        faulty,
        _mirror(original),
        _mirror(original),
        _mirror(original, served_entity="another"),
        _mirror(other),
        _mirror({**original, "databricks_request_id": "request-of-yesterday"}),
    ]
    found = _pairs(rows)
    assert (found.originals, found.mirrored) == (1, 1)


def test_answers_are_compared_word_by_word() -> None:
    texts = [
        ("The cat  sat.\n", " The cat sat."),
        ("the CAT sat", "The cat ran"),
        ("yes", "no"),
        ("!", "!"),
        (None, "yes"),
    ]
    rows = []
    for number, (one, other) in enumerate(texts):
        original = _original(f"user-{number}", response_text=one)
        rows += [original, _mirror(original, response_text=other)]
    found = _pairs(rows)
    assert (found.answers_identical.records, found.answers_identical.total) == (4, 2)
    assert found.word_overlap.records == 3, "an answer without words has no overlap"
    assert found.word_overlap.total == pytest.approx(1.0 + 0.5 + 0.0)


def test_scores_of_both_answers_are_compared() -> None:
    originals = [_original(f"user-{number}") for number in range(3)]
    mirrors = [_mirror(original) for original in originals]
    scores = [score(row, 0.2, "toxicity") for row in originals]
    scores += [
        score(mirrors[0], 0.5, "toxicity"),
        score(mirrors[1], None, "toxicity", unscored_reason="empty"),
    ]
    found = _metric([*originals, *mirrors], scores, "score:toxicity")
    assert found.differences.total == pytest.approx(0.3)
    assert found.excluded == {"treatment": {"unscored: empty": 1, "not_scored_yet": 1}}


def test_what_needs_a_user_or_a_quantile_is_left_out() -> None:
    original = _original()
    found = _pairs([original, _mirror(original)], secondary_metrics=("latency_ms:p95", "feedback:thumbs"))
    assert [paired.metric.name for paired in found.metrics] == ["output_tokens"]


def test_no_records_make_no_pairs() -> None:
    found = _pairs([])
    assert (found.originals, found.mirrored, found.without_answer) == (0, 0, {})
    assert found.metrics[0].differences == Moments()
    assert found.answers_identical == Moments()
