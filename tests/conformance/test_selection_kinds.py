"""relabel.selection: every kind of rule, on real Delta tables in either database."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from collector.catalog import EndpointTables
from relabel.case import Reason, ReasonKind
from relabel.models import OccurrenceRow
from relabel.queue.case_queue import CaseQueue
from relabel.selection.bound import Bound
from relabel.selection.draws import CONTROL, is_drawn
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
)
from relabel.selection.selector import Selector
from relabel.selection.suppression import OFF
from servelens.clock import ManualClock
from servelens.database import Database
from tests.label_schemas import Versions
from tests.relabel_cases import START, append_rows, endpoint_tables, payload_row, score_row
from tests.selection_rows import (
    append_to,
    drift_row,
    feedback_row,
    said,
    shadow_row,
    shadow_score_row,
)


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(str(tmp_path / "tables"))


@pytest.fixture
def queue(database: Database) -> CaseQueue:
    return CaseQueue(database, ManualClock(START))


def _selector(tables: EndpointTables, database: Database, *rules: CaseRule) -> Selector:
    return Selector(tables, "chat", rules, database, ManualClock(START), suppression=OFF)


def _reasons(queue: CaseQueue) -> dict[int, list[Reason]]:
    found: dict[int, list[Reason]] = {}
    for case in queue.list(limit=500).cases:
        found[int(case.databricks_request_id.removeprefix("request-"))] = list(case.reasons)
    return found


def test_what_a_score_says_by_itself(tables: EndpointTables, database: Database, queue: CaseQueue) -> None:
    rules = [
        LabelRule("sentiment", ("angry", "sad"), name="upset", priority=2),
        UnscoredRule("toxicity", ("too_long",)),
        UnscoredRule("language", target="request"),
        LowConfidenceRule("toxicity", 0.4, 0.6),
    ]
    scores = [
        score_row(0, 0.9, evaluator="sentiment", label="angry", evaluator_version="s-3"),
        score_row(1, 0.9, evaluator="sentiment", label="glad"),
        score_row(2, None, unscored_reason="too_long"),
        score_row(3, None, unscored_reason="empty"),
        score_row(4, None, evaluator="language", target="request", unscored_reason="empty"),
        score_row(5, 0.4),
        score_row(6, 0.61),
        score_row(7, math.nan),
    ]
    append_rows(tables, [payload_row(number) for number in range(8)], scores)
    assert _selector(tables, database, *rules).run() == 4
    reasons = _reasons(queue)
    assert {number: [reason.kind for reason in of_case] for number, of_case in reasons.items()} == {
        0: [ReasonKind.SCORE_LABEL],
        2: [ReasonKind.UNSCORED],
        4: [ReasonKind.UNSCORED],
        5: [ReasonKind.LOW_CONFIDENCE],
    }
    [angry] = reasons[0]
    assert (angry.rule, angry.label, angry.evaluator_version, angry.priority) == ("upset", "angry", "s-3", 2)
    assert reasons[2][0].detail == "toxicity could not score it: too_long"
    assert (reasons[5][0].score, reasons[5][0].direction) == (0.4, None)


def test_two_evaluators_disagree_whichever_comes_first(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    rule = EvaluatorDisagreementRule(Bound("toxicity", above=0.5), Bound("judge", below=3))
    selector = _selector(tables, database, rule)
    selector.run()
    append_rows(
        tables,
        [payload_row(number) for number in range(5)],
        [
            score_row(0, 0.9),
            score_row(1, 5.0, evaluator="judge"),
            score_row(2, 0.9),
            score_row(3, 0.1),
            score_row(4, 0.9),
        ],
    )
    assert selector.run() == 0  # nobody has been scored by both
    append_rows(
        tables,
        [],
        [
            score_row(0, 5.0, evaluator="judge"),  # only toxicity flags it
            score_row(1, 0.9),
            score_row(2, 1.0, evaluator="judge"),  # both flag it
            score_row(3, 5.0, evaluator="judge"),  # neither does
            score_row(4, None, evaluator="judge", unscored_reason="timeout"),
        ],
    )
    assert selector.run() == 2
    reasons = _reasons(queue)
    assert sorted(reasons) == [0, 1]
    assert reasons[0][0].kind is ReasonKind.EVALUATOR_DISAGREEMENT
    assert reasons[0][0].detail == "toxicity gave 0.9, judge gave 5.0: toxicity flags it, judge does not"


def test_a_shadow_that_says_something_else(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    selector = _selector(tables, database, ShadowTextRule(0.5))
    selector.run()
    answer = "Paris is the capital of France."
    append_to(tables.payload, [said(number, "what is the capital?", answer) for number in (1, 2, 4)])
    append_to(tables.payload, [shadow_row(103, 3, "I cannot help with that request, sorry.")])
    assert selector.run() == 0
    append_to(
        tables.payload,
        [
            said(3, "and of Spain?", "Madrid is the capital of Spain."),  # after its shadow
            shadow_row(101, 1, "No idea, ask somebody who knows geography!"),
            shadow_row(102, 2, "Paris is the capital of France"),
            shadow_row(104, 4, ""),  # it failed
        ],
    )
    assert selector.run() == 2
    reasons = _reasons(queue)
    assert sorted(reasons) == [1, 3]
    [reason] = reasons[1]
    assert reason.score is not None
    assert reason.score < 0.5 == reason.threshold
    assert reason.detail is not None
    assert reason.detail.startswith("next answered something else: similarity ")


def test_a_shadow_that_is_scored_otherwise(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    selector = _selector(tables, database, ShadowScoreRule("judge", 1.5))
    selector.run()
    append_to(tables.payload, [payload_row(number) for number in (1, 2, 3)])
    append_to(tables.payload, [shadow_row(100 + number, number, f"other {number}") for number in (1, 2, 3)])
    append_to(tables.scores, [score_row(1, 5.0, evaluator="judge"), score_row(2, 5.0, evaluator="judge")])
    append_to(tables.scores, [shadow_score_row(103, 3, 5.0, evaluator="judge")])
    assert selector.run() == 0
    append_to(
        tables.scores,
        [
            shadow_score_row(101, 1, 2.0, evaluator="judge"),
            shadow_score_row(102, 2, 4.0, evaluator="judge"),
            score_row(3, 1.0, evaluator="judge"),
        ],
    )
    assert selector.run() == 2
    reasons = _reasons(queue)
    assert sorted(reasons) == [1, 3]
    assert reasons[1][0].detail == "judge gave the answer 5.0, that of next 2.0"


def test_feedback_makes_cases_by_label_or_value(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    rules = [
        FeedbackRule("thumbs", labels=("down",), priority=5),
        FeedbackRule("stars", below=3, name="few-stars"),
    ]
    append_to(tables.payload, [payload_row(number) for number in range(5)])
    selector = _selector(tables, database, *rules)
    append_to(tables.feedback, [feedback_row(4, "thumbs", label="down")])
    assert selector.run() == 0  # given before the rule was known
    append_to(
        tables.feedback,
        [
            feedback_row(0, "thumbs", label="down", comment=" it made that up "),
            feedback_row(1, "thumbs", label="up"),
            feedback_row(2, "stars", value=1.0, label="I am Ann"),
            feedback_row(3, "stars", value=3.0),
            feedback_row(4, "thumbs", label="down", source_id="ann"),
            feedback_row(
                4, "thumbs", label="up", source_id="ann", feedback_time=START + timedelta(hours=2)
            ),  # thought better of it
        ],
    )
    assert selector.run() == 2
    reasons = _reasons(queue)
    assert sorted(reasons) == [0, 2]
    assert reasons[0][0].detail == "thumbs: down"
    assert (reasons[0][0].label, reasons[0][0].priority) == ("down", 5)
    assert (reasons[2][0].detail, reasons[2][0].label) == ("stars: 1.0", None)
    assert (reasons[2][0].rule, reasons[2][0].score, reasons[2][0].threshold) == ("few-stars", 1.0, 3)


def test_some_records_of_a_window_that_drifted(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    rules = [DriftRule(per_window=3, slice_key="variant", min_effect=0.2)]
    selector = _selector(tables, database, *rules)
    selector.run()
    hour = START.replace(minute=0, second=0)
    append_to(
        tables.payload,
        [payload_row(number, variant="treatment" if number % 2 else "control") for number in range(20)]
        + [payload_row(20, variant="treatment", request_time=hour + timedelta(hours=2))]
        + [shadow_row(99, 1, "other") | {"variant": "treatment"}],
    )
    of = {"slice_key": "variant", "slice_value": "treatment"}
    append_to(
        tables.drift,
        [
            drift_row(hour, ":table", None, 0.0, **of),
            drift_row(hour, "input_tokens", 1e-9, 0.4, **of),
            drift_row(hour, "output_tokens", 1e-9, 0.1, **of),  # significant, and small
            drift_row(hour, "latency", 0.04, 0.9, **of),  # not after the correction
            drift_row(hour, "input_tokens", 1e-9, 0.4, slice_key="variant", slice_value="control")
            | {"ks_test": {"statistic": 0.4, "pvalue": 0.5}},
        ],
    )
    assert selector.run() == 3
    reasons = _reasons(queue)
    assert all(number % 2 and number < 20 for number in reasons)
    assert {reason.detail for of_case in reasons.values() for reason in of_case} == {
        "input_tokens drifted of variant treatment in the 1 hour from 2026-03-01 12:00 UTC"
    }
    append_to(tables.drift, [drift_row(hour, "input_tokens", 1e-9, 0.4, **of)])  # written again
    assert selector.run() == 0
    assert selector.run() == 0


def test_the_control_sample_is_a_share_of_the_answered_records(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    selector = _selector(tables, database, Rule("toxicity", above=0.5), RandomRule(0.5))
    selector.run()
    answered = range(60)
    rows = [payload_row(number) for number in answered]
    rows += [payload_row(number, status_code=500) for number in range(60, 90)]
    rows += [shadow_row(number, 1, "other") for number in range(90, 120)]
    append_rows(tables, rows, [])
    drawn = {number for number in answered if is_drawn(f"request-{number:06d}", 0.5, CONTROL)}
    assert 15 < len(drawn) < 45
    assert selector.run() == len(drawn)
    first_drawn, first_not = min(drawn), min(set(answered) - drawn)
    append_rows(tables, [], [score_row(first_drawn, 0.9), score_row(first_not, 0.9)])
    assert selector.run() == 1
    reasons = _reasons(queue)
    assert sorted(reasons) == sorted({*drawn, first_not})
    assert [reason.kind for reason in reasons[first_drawn]] == [ReasonKind.RANDOM, ReasonKind.SCORE]
    with database.session(read_only=True) as session:
        sampled = {row.databricks_request_id: row.sampled for row in session.scalars(select(OccurrenceRow))}
    assert {name for name, share in sampled.items() if share == 0.5} == {f"request-{n:06d}" for n in drawn}
    assert sampled[f"request-{first_not:06d}"] is None


def test_a_record_that_is_a_case_already_gets_its_probability(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    append_rows(tables, [payload_row(1), payload_row(2)], [score_row(1, 0.9)])
    _selector(tables, database, Rule("toxicity", above=0.5)).run()
    selector = _selector(tables, database, Rule("toxicity", above=0.5), RandomRule(1.0))
    assert selector.run() == 0  # what is there already is not drawn
    append_to(tables.payload, [payload_row(3)])
    append_to(tables.scores, [score_row(3, 0.9)])
    scores_first = _selector(tables, database, Rule("toxicity", above=0.5))
    assert scores_first.run() == 1
    assert selector.run() == 0
    with database.session(read_only=True) as session:
        sampled = {row.databricks_request_id: row.sampled for row in session.scalars(select(OccurrenceRow))}
    assert sampled == {"request-000001": None, "request-000003": 1.0}


def test_the_budget_of_the_control_sample_lowers_the_fraction_of_whole_days(
    tables: EndpointTables, database: Database
) -> None:
    selector = _selector(tables, database, RandomRule(0.5, daily_budget=10))
    selector.run()
    day = 86_400
    append_to(tables.payload, [payload_row(number) for number in range(100)])
    append_to(tables.payload, [payload_row(day + number) for number in range(50)])
    selector.run()
    append_to(tables.payload, [payload_row(day + number) for number in range(50, 100)])
    append_to(tables.payload, [payload_row(2 * day + number) for number in range(10)])
    selector.run()
    with database.session(read_only=True) as session:
        shares: dict[int, set[float | None]] = {}
        for row in session.scalars(select(OccurrenceRow)):
            shares.setdefault((row.request_time - START).days, set()).add(row.sampled)
    assert shares[0] == {0.5}  # nothing is known of the day before
    assert shares[1] == {0.1}  # 10 of the 100 of the day before
    assert shares.get(2, {0.1}) == {0.1}


def test_a_sample_of_the_matches_is_taken(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    rule = Rule("toxicity", above=0.5, sample=0.3, name="some")
    append_rows(
        tables,
        [payload_row(number) for number in range(100)],
        [score_row(number, 0.9) for number in range(100)],
    )
    expected = {n for n in range(100) if is_drawn(f"request-{n:06d}", 0.3, "rule some")}
    assert 10 < len(expected) < 55
    assert _selector(tables, database, rule).run() == len(expected)
    assert set(_reasons(queue)) == expected


def test_a_case_brings_what_its_shadow_answered(
    tables: EndpointTables, database: Database, queue: CaseQueue
) -> None:
    rules = [Rule("toxicity", "response", above=0.5), ShadowTextRule(0.5)]
    selector = _selector(tables, database, *rules)
    selector.run()
    payload = [payload_row(0), said(1, "Why?", "Because of the light."), said(2, "Why?", "Nobody knows it.")]
    append_rows(tables, payload, [score_row(0, 0.9), score_row(1, 0.9)])
    append_to(tables.payload, [shadow_row(10, 0, "Entirely different words.")])
    assert selector.run() == 2
    shadows = [
        shadow_row(11, 1, "Something else was said here."),
        shadow_row(12, 2, "Water, then. Ask a fisherman."),
        shadow_row(13, 2, "Nobody knows it."),
    ]
    append_to(tables.payload, shadows)
    assert selector.run() == 1
    answers = {
        case.databricks_request_id: [(each.source, each.text) for each in queue.get(case.id).alternatives]
        for case in queue.list(limit=10).cases
    }
    assert answers == {
        "request-000000": [("shadow", "Entirely different words.")],  # there when the case was made
        "request-000001": [("shadow", "Something else was said here.")],  # came with its rule, later
        "request-000002": [("shadow", "Water, then. Ask a fisherman.")],  # not what the recorded answer says
    }


def test_the_answers_of_a_case_that_somebody_has_stand(tables: EndpointTables, database: Database) -> None:
    queue = CaseQueue(database, ManualClock(START), schemas=Versions(annotators=2))
    selector = _selector(tables, database, Rule("toxicity", "response", above=0.5), ShadowTextRule(0.5))
    selector.run()
    append_rows(tables, [said(1, "Why?", "Because of the light.")], [score_row(1, 0.9)])
    assert selector.run() == 1
    claimed = queue.claim("ada")
    assert claimed is not None
    append_to(tables.payload, [shadow_row(11, 1, "Something else was said here.")])
    selector.run()
    case = queue.get(claimed.id)
    assert case.alternatives == ()
    assert len(case.reasons) == 2
