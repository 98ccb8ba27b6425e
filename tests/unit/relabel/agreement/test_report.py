from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats import inter_rater

from relabel.agreement.krippendorff_alpha import krippendorff_alpha
from relabel.agreement.ratings import Ratings
from relabel.agreement.report import PeopleAgreement, people_agreement
from relabel.human_labels import human_labels
from relabel.label_schema import Field, FieldType, LabelSchema
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from tests.new_database import new_database
from tests.relabel_cases import START
from tests.unit.relabel.agreement.labeled_cases import (
    RICH,
    Kept,
    decide,
    label,
    labels,
    make_gold,
    skip,
    store,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


def field(report: PeopleAgreement, name: str) -> Any:
    return next(each for each in report.fields if each.field == name)


def ratings_of(seed: int, count: int, people: int = 3) -> list[list[str]]:
    """By person: what they say of each case."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    said = np.where(rng.random((people, count)) < 0.8, truth, rng.random((people, count)) < 0.4)
    return [["bad" if bad else "good" for bad in person] for person in said]


def test_ratings_of_three_people(database: Database) -> None:
    cases = store(database, 60)
    said = ratings_of(1, 60)
    labels(
        database,
        cases,
        {name: [{"rating": word} for word in row] for name, row in zip("abc", said, strict=True)},
    )
    other = store(database, 3, endpoint="other", first=100)
    labels(database, other, {"a": [{"rating": "good"}] * 3})
    report = people_agreement(database, "chat")
    assert (report.labels, report.cases, report.cases_of_several) == (180, 60, 60)
    found = field(report, "rating")
    table, _ = inter_rater.aggregate_raters(np.array(said).T)
    assert found.measures["fleiss"].value == pytest.approx(inter_rater.fleiss_kappa(table))
    assert found.measures["raw"].cases == 60
    assert found.shares["bad"] == pytest.approx(sum(row.count("bad") for row in said) / 180)
    assert [(pair.first, pair.second, pair.cases) for pair in report.pairs] == [
        ("a", "b", 60),
        ("a", "c", 60),
        ("b", "c", 60),
    ]
    for pair in report.pairs:
        one, two = (said["abc".index(name)] for name in (pair.first, pair.second))
        expected = inter_rater.cohens_kappa(
            [
                [sum(x == i and y == j for x, y in zip(one, two, strict=True)) for j in ("good", "bad")]
                for i in ("good", "bad")
            ]
        )
        assert pair.kappa.value == pytest.approx(expected.kappa)
        assert pair.raw.value == sum(x == y for x, y in zip(one, two, strict=True)) / 60
    json.dumps(report.to_dict(), allow_nan=False)


def test_every_type_of_field(database: Database) -> None:
    cases = store(database, 30)

    def answers(person: int) -> list[dict[str, Any]]:
        return [
            {
                "schema_version": 1,
                "rating": "good" if (number + person * (number % 3 == 0)) % 2 else "bad",
                "tags": ["Toxic"] if number % 2 else ["toxic", "spam"][: 1 + person],
                "preferred": "answer" if number % (2 + person) else "shadow",
                "values": {
                    "helpful": 1 + (number + person * (number % 4 == 0)) % 5,
                    "topic": ("billing", "bug", "other")[(number + person * (number % 5 == 0)) % 3],
                    "marked": [{"start": number, "end": number + 3 + person, "label": "claim", "text": "…"}],
                    "why": "because",
                    **({"faults": ["wrong", "rude"]} if number % 3 else {}),
                },
            }
            for number in range(30)
        ]

    labels(database, cases, {"ann": answers(0), "bob": answers(1)})
    report = people_agreement(database, "chat", Kept(RICH))
    assert {each.field: (each.level, set(each.measures)) for each in report.fields} == {
        "verdict": ("nominal", {"raw", "fleiss", "alpha"}),
        "helpful": ("ordinal", {"raw", "fleiss", "alpha"}),
        "topic": ("nominal", {"raw", "fleiss", "alpha"}),
        "faults": ("set", {"raw", "alpha_masi", "alpha_jaccard"}),
        "marked": ("spans", {"raw", "f1_exact", "f1_overlap"}),
        "better": ("nominal", {"raw", "fleiss", "alpha"}),
        "tags": ("set", {"raw", "alpha_masi", "alpha_jaccard"}),
    }
    assert [each.decides for each in report.fields[:3]] == [True, True, False]
    helpful = [[row["values"]["helpful"] for row in answers(person)] for person in (0, 1)]
    expected = krippendorff_alpha(Ratings.of(zip(*helpful, strict=True), categories=range(1, 6)), "ordinal")
    assert field(report, "helpful").measures["alpha"] == expected
    # Not choosing anything is an answer, and tags are the same in any case.
    faults = field(report, "faults")
    assert faults.measures["raw"].value == 1
    assert faults.labels == 60
    assert field(report, "tags").measures["raw"].value == pytest.approx(0.5)
    marked = field(report, "marked").measures
    assert (marked["f1_exact"].value, marked["f1_overlap"].value) == (0, 1)
    weights = {pair.field: pair.weights for pair in report.pairs}
    assert weights == {"verdict": None, "helpful": "quadratic", "topic": None, "better": None}
    json.dumps(report.to_dict(), allow_nan=False)


def test_too_few_cases_have_no_kappa(database: Database) -> None:
    cases = store(database, 15)
    rows = [{"rating": "good"} if number % 2 else {"rating": "bad"} for number in range(15)]
    labels(database, cases, {"ann": rows, "bob": [*rows[:12], None, None, None]})
    report = people_agreement(database, "chat")
    found = field(report, "rating")
    assert found.measures["raw"].value == 1
    assert found.measures["alpha"].value is None
    assert found.measures["alpha"].reason == "12 cases have two labels; 20 are needed"
    assert report.pairs[0].kappa.reason == "both labeled 12 cases; 20 are needed"
    assert people_agreement(database, "nobody").to_dict()["fields"] == []


def test_versions_meet_where_the_field_is_the_same(database: Database) -> None:
    shorter = LabelSchema(
        version=2, fields=(Field(name="helpful", type=FieldType.SCALE, scale=5, decides=True),)
    )
    longer = LabelSchema(
        version=3, fields=(Field(name="helpful", type=FieldType.SCALE, scale=7, decides=True),)
    )
    cases = store(database, 30)
    labels(
        database,
        cases,
        {
            "ann": [{"schema_version": 1, "values": {"helpful": 1 + number % 5}} for number in range(30)],
            "bob": [{"schema_version": 2, "values": {"helpful": 1 + number % 4}} for number in range(30)],
            "cem": [{"schema_version": 3, "values": {"helpful": 7}}] * 30,
            "dee": [{"schema_version": 9, "values": {"helpful": 1}}] * 30,
        },
    )
    report = people_agreement(database, "chat", Kept(RICH, shorter, longer))
    first, second = (each for each in report.fields if each.field == "helpful")
    assert (first.versions, first.cases, first.people) == ((1, 2), 30, 2)
    assert (second.versions, second.cases, second.scale) == ((3,), 0, 7)
    assert report.unread == {9: 30}
    assert [(pair.first, pair.second) for pair in report.pairs if pair.field == "helpful"] == [("ann", "bob")]


def test_adjudicators_and_gold_cases_are_no_agreement(database: Database) -> None:
    cases = store(database, 4)
    good, bad = {"rating": "good"}, {"rating": "bad"}
    labels(database, cases, {"ann": [good, good, good, bad], "bob": [good, bad, bad, bad]})
    judged = label(database, cases[1], "judge", rating="bad", is_adjudication=True)
    decide(database, cases[1], judged, labels=3)
    make_gold(database, cases[2], {"rating": "good"})
    make_gold(database, cases[3], {"rating": "good", "tags": []})
    skip(database, cases[0], "judge")
    report = people_agreement(database, "chat")
    assert (report.labels, report.cases, field(report, "rating").cases) == (4, 2, 2)
    people = {each.annotator: each for each in report.annotators}
    assert (people["ann"].gold.value, people["bob"].gold.value) == (0.5, 0)
    assert people["ann"].gold.cases == 2
    assert people["ann"].gold.interval is not None
    assert people["judge"].gold.reason == "no gold case was labeled"
    assert (people["judge"].labels, people["judge"].adjudications, people["judge"].skips) == (1, 1, 1)
    # The one decided case: bob said what the judge said; the judge's own label is not compared with itself.
    assert (people["ann"].decision.value, people["bob"].decision.value) == (0, 1)
    assert people["judge"].decision.value is None


def test_the_newest_decision_counts(database: Database) -> None:
    cases = store(database, 1)
    ids = [
        label(database, cases[0], name, rating=word, duration_s=seconds)
        for name, word, seconds in (("ann", "good", 4.0), ("bob", "bad", 10.0))
    ]
    decide(database, cases[0], ids[0], labels=2)
    newest = decide(database, cases[0], ids[1], labels=2)
    report = people_agreement(database, "chat")
    assert report.newest_decision == newest
    people = {each.annotator: each for each in report.annotators}
    assert (people["ann"].decision.value, people["bob"].decision.value) == (0, 1)
    assert (people["ann"].median_s, people["ann"].timed) == (4.0, 1)
    decide(database, cases[0], None, labels=0)
    assert people_agreement(database, "chat").annotators[0].decision.value is None


def test_a_gold_answer_is_compared_where_it_decides(database: Database) -> None:
    cases = store(database, 2)
    for case in cases:
        make_gold(database, case, {"verdict": "good", "topic": "bug"})
    label(database, cases[0], "ann", rating="good", values={"topic": "other"}, schema_version=1)
    label(database, cases[1], "ann", rating="bad", values={"topic": "bug"}, schema_version=1)
    only = store(database, 1, first=10)[0]
    make_gold(database, only, {"tags": ["Spam", "x"]})
    label(database, only, "ann", rating="bad", tags=["X", "spam"], schema_version=1)
    (person,) = people_agreement(database, "chat", Kept(RICH)).annotators
    assert (person.gold.value, person.gold.cases) == (pytest.approx(2 / 3), 3)


def test_many_are_read_in_chunks(database: Database) -> None:
    cases = store(database, 20)
    rows = [{"rating": "good"} if number % 2 else {"rating": "bad"} for number in range(20)]
    labels(database, cases, {"ann": rows, "bob": rows, "cem": rows[1:] + rows[:1]})
    for case, label_id in zip(cases, range(1, 21), strict=True):
        decide(database, case, label_id, labels=3)
    report = people_agreement(database, "chat", cases_at_once=7)
    assert (report.labels, report.cases) == (60, 20)
    people = {each.annotator: each.decision for each in report.annotators}
    assert (people["ann"].value, people["cem"].value, people["cem"].cases) == (1, 0, 20)
    assert all(one.cases >= two.cases for one, two in pairwise(report.pairs))


def test_what_the_queue_writes_is_what_is_read(database: Database) -> None:
    """Two annotators, a dispute that a third decides, a gold case and a skip, all through the queue."""
    schema = LabelSchema(
        version=1,
        fields=(Field(name="rating", type=FieldType.RATING, required=True, decides=True),),
        annotators=2,
        gold_every=1,
    )
    clock = ManualClock(START)
    queue = CaseQueue(database, clock, schemas=Kept(schema))
    agreed, disputed, skipped, gold = store(database, 4)
    queue.set_gold(gold, {"rating": "bad"}, actor="lead")
    said = {
        "ann": {agreed: "good", disputed: "good", gold: "bad"},
        "bob": {agreed: "good", disputed: "bad", gold: "good"},
    }
    for name, answers in said.items():
        while (case := queue.claim(name, "chat")) is not None:
            clock.advance(30)
            if case.id == skipped:
                queue.skip(case.id, name, "unclear")
            else:
                queue.answer(case.id, name, {"rating": answers[case.id]})
    dispute = queue.claim_dispute("judge", "chat")
    assert dispute is not None
    assert dispute.id == disputed
    queue.answer(disputed, "judge", {"rating": "bad"})
    report = people_agreement(database, "chat", Kept(schema))
    assert (report.labels, report.cases, report.unread) == (4, 2, {})
    assert field(report, "rating").measures["raw"].value == 0.5
    people = {each.annotator: each for each in report.annotators}
    assert (people["ann"].gold.value, people["bob"].gold.value) == (1, 0)
    assert (people["ann"].decision.value, people["bob"].decision.value) == (0.5, 1)
    assert (people["ann"].skips, people["ann"].median_s, people["judge"].adjudications) == (1, 30, 1)
    decided = {each.case_id: (each.rating, each.resolution) for each in human_labels(database, "chat")}
    assert decided == {agreed: ("good", "unanimous"), disputed: ("bad", "adjudicated")}
    queue.reopen(agreed, "lead", "the guidelines changed")
    assert {each.case_id for each in human_labels(database, "chat")} == {disputed}
    assert people_agreement(database, "chat", Kept(schema)).labels == 2
