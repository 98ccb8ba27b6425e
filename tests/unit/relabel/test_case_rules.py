"""relabel.selection.rule and suppression: what means nothing is refused, with the field and the fix."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from relabel.selection.bound import Bound
from relabel.selection.rule import (
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


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Rule("t", above=1.0, name="manual"), "name"),
        (lambda: Rule("t", above=1.0, name="x" * 256), "name"),
        (lambda: Rule("t", above=1.0, daily_budget=0), "daily_budget"),
        (lambda: Rule("t", above=1.0, sample=0.0), "sample"),
        (lambda: Rule("t", above=1.0, sample=math.nan), "sample"),
        (lambda: LabelRule("t", ()), "label"),
        (lambda: LabelRule("t", ("a",), "both"), "target"),  # type: ignore[arg-type]
        (lambda: UnscoredRule("t", target="both"), "target"),  # type: ignore[arg-type]
        (lambda: LowConfidenceRule("t", 0.6, 0.4), "between"),
        (lambda: LowConfidenceRule("t", math.nan, 0.4), "between"),
        (lambda: ShadowTextRule(0.0), "similarity_below"),
        (lambda: ShadowScoreRule("t", -1.0), "differs_by"),
        (lambda: ShadowScoreRule("t", math.inf), "differs_by"),
        (lambda: EvaluatorDisagreementRule(Bound("t", above=1), Bound("t", below=2)), "evaluators"),
        (lambda: Bound("t"), "above"),
        (lambda: DriftRule(alpha=0.0), "alpha"),
        (lambda: DriftRule(min_effect=2.0), "min_effect"),
        (lambda: DriftRule(per_window=0), "per_window"),
        (lambda: FeedbackRule("", labels=("down",)), "feedback"),
        (lambda: FeedbackRule("thumbs"), "label"),
        (lambda: FeedbackRule("thumbs", below=1.0, labels=("down",)), "label"),
        (lambda: FeedbackRule("thumbs", below=1.0, above=1.0), "above"),
        (lambda: FeedbackRule("thumbs", below=math.nan), "below"),
        (lambda: RandomRule(0.0), "fraction"),
        (lambda: RandomRule(0.1, sample=0.5), "sample"),
        (lambda: Suppression(near_duplicate=1.1), "near_duplicate"),
        (lambda: Suppression(near_duplicate=0.7), "near_duplicate"),
        (lambda: Suppression(cluster=0.0), "cluster"),
        (lambda: Suppression(max_per_cluster=0), "max_per_cluster"),
        (lambda: Suppression(days=0), "days"),
    ],
)
def test_what_means_nothing_is_refused(make: Callable[[], object], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        make()
    assert caught.value.field == field
    assert caught.value.fix


def test_names_say_what_a_rule_does() -> None:
    rules = [
        Rule("toxicity", above=0.5),
        LabelRule("sentiment", ("angry", "sad")),
        UnscoredRule("judge", ("timeout",)),
        LowConfidenceRule("toxicity", 0.4, 0.6),
        ShadowScoreRule("judge", 1.0),
        EvaluatorDisagreementRule(Bound("toxicity", above=0.5), Bound("judge", below=3)),
        FeedbackRule("stars", below=3),
        FeedbackRule("thumbs", labels=("down",)),
        DriftRule("input_tokens", "1 hour"),
        RandomRule(0.01),
    ]
    assert [rule.name for rule in rules] == [
        "toxicity response above",
        "sentiment response is angry or sad",
        "judge response unscored timeout",
        "toxicity response between 0.4 and 0.6",
        "judge response of shadow differs",
        "toxicity response against judge response",
        "feedback stars below 3",
        "feedback thumbs down",
        "drift input_tokens 1 hour",
        "random",
    ]
    check_names(tuple(rules))


def test_two_rules_of_one_name_are_refused_but_for_two_plain_thresholds_of_a_score() -> None:
    check_names((Rule("t", above=0.5), Rule("t", above=0.9, priority=5)))
    for second in (Rule("t", above=0.9, daily_budget=5), Rule("t", above=0.9, sample=0.5)):
        with pytest.raises(Invalid) as caught:
            check_names((Rule("t", above=0.5), second))
        assert caught.value.field == "rules[1].name"
    with pytest.raises(Invalid):
        check_names((RandomRule(0.1, name="x"), Rule("t", above=0.5, name="x")))
