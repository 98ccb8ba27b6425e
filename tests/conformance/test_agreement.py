"""Labels are read for agreement alike from both databases."""

from __future__ import annotations

from relabel.agreement.report import people_agreement
from relabel.human_labels import human_labels, sampled_records
from servelens.database import Database
from tests.unit.relabel.agreement.labeled_cases import (
    RICH,
    Kept,
    decide,
    label,
    labels,
    make_gold,
    sample,
    store,
)


def test_the_report_reads_every_kind_of_answer(database: Database) -> None:
    cases = store(database, 24)
    rows = [
        {
            "schema_version": 1,
            "rating": "good" if number % 3 else "bad",
            "tags": ["ünïcode"] if number % 2 else [],
            "values": {
                "helpful": 1 + number % 5,
                "marked": [{"start": 0, "end": 2, "label": "name", "text": "ab"}],
            },
        }
        for number in range(24)
    ]
    labels(database, cases, {"ann": rows, "bob": [*rows[:20], None, *rows[21:]]})
    make_gold(database, cases[3], {"helpful": 4})
    report = people_agreement(database, "chat", Kept(RICH), cases_at_once=10)
    fields = {field.field: field for field in report.fields}
    assert set(fields) == {"verdict", "helpful", "faults", "marked", "tags"}
    assert fields["helpful"].measures["raw"].value == 1
    assert fields["helpful"].cases == 22
    assert fields["tags"].shares == {"ünïcode": 22 / 45}
    assert {each.annotator: each.gold.value for each in report.annotators} == {"ann": 1, "bob": 1}


def test_the_newest_decision_of_each_case_is_read(database: Database) -> None:
    one, two, three, four = store(database, 4)
    first = label(database, one, "ann", rating="good", tags=["x"])
    second = label(database, one, "bob", rating="bad", values={"topic": "bug"})
    decide(database, one, first, labels=2)
    decide(database, two, label(database, two, "ann", rating="good"))
    decide(database, two, None, labels=0)
    decide(database, three, label(database, three, "ann", rating="bad"))
    decide(database, one, second, labels=2)
    decide(database, four, label(database, four, "ann", rating="bad"))
    make_gold(database, four, {"rating": "bad"})
    found = list(human_labels(database, "chat", rows_at_once=1))
    assert [(each.case_id, each.rating, each.values, each.labels) for each in found] == [
        (three, "bad", {}, 1),
        (one, "bad", {"topic": "bug"}, 2),
    ]
    assert [choice.evaluator for choice in found[0].choices] == ["toxicity"]
    assert list(human_labels(database, "other")) == []


def test_the_control_sample_is_read_with_its_probabilities(database: Database) -> None:
    one, two, three = store(database, 3)
    sample(database, one, 0.25)
    sample(database, one, 0.5, "chat-repeated")
    sample(database, three, 0.1)
    make_gold(database, three, {"rating": "bad"})
    found = list(sampled_records(database, "chat", rows_at_once=1))
    assert [(each.databricks_request_id, each.case_id, each.share, each.is_near) for each in found] == [
        ("chat-000000", one, 0.25, False),
        ("chat-000002", three, 0.1, False),  # made gold by somebody who looked at it: it is not taken out
        ("chat-repeated", one, 0.5, False),
    ]
    assert two not in {each.case_id for each in found}
