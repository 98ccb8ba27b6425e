"""Answers that the scores suggest: only where the schema shows them, by the schema that the annotator was given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relabel.case import RecordedScore
from relabel.models import ClaimRow, ClaimState
from relabel.schema_definition import parse_schema
from relabel.schema_store import SchemaStore
from relabel.suggestions import Suggested, suggestions, suggestions_for
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Missing
from tests.relabel_cases import START, add_cases, flagged

SCORES = (
    RecordedScore("toxicity", "response", 0.9, "toxic"),
    RecordedScore("toxicity", "request", 0.2, "ok"),
    RecordedScore("perplexity", "response", None, None),
    RecordedScore("judge", "response", 0.5, "bad"),
    RecordedScore("language", "response", 1.0, "x" * 101),
)


def asks(field: dict[str, Any], *, shown: bool = True) -> dict[str, Any]:
    return {"show_suggestions": shown, "fields": [{"name": "x", **field}]}


def suggested(*rules: dict[str, Any], **field: Any) -> list[Any]:
    found = suggestions(parse_schema(asks({**field, "suggest": list(rules)})), SCORES)
    return [each.value for each in found.get("x", [])]


def test_a_threshold_suggests_a_value() -> None:
    over = {"evaluator": "toxicity", "above": 0.5, "value": "rude"}
    kinds: dict[str, Any] = {"type": "multiple_choice", "options": ["rude", "fine"]}
    assert suggested(over, **kinds) == ["rude"]
    assert suggested({**over, "above": 0.9}, **kinds) == []  # over, not at
    assert suggested({**over, "target": "request"}, **kinds) == []
    under = {"evaluator": "toxicity", "target": "request", "below": 0.3, "value": "fine"}
    assert suggested(over, under, **kinds) == ["rude", "fine"]
    assert suggested({"evaluator": "perplexity", "above": 0, "value": "rude"}, **kinds) == []
    assert suggested({"evaluator": "unknown", "above": 0, "value": "rude"}, **kinds) == []
    assert suggested({**over, "value": 2}, type="scale", scale=5) == [2]
    assert suggested({**over, "value": 1}, type="rating", scale=5) == [1]
    assert suggested({**over, "value": "toxic!"}, type="tags") == ["toxic!"]


def test_a_label_suggests_itself_where_the_field_can_have_it() -> None:
    toxicity, judge = {"evaluator": "toxicity"}, {"evaluator": "judge"}
    assert suggested(toxicity, type="choice", options=["toxic", "ok"]) == ["toxic"]
    assert suggested(toxicity, type="choice", options=["Toxic"]) == []
    assert suggested(toxicity, type="rating") == []
    assert suggested(judge, type="rating") == ["bad"]
    assert suggested(toxicity, {"evaluator": "language"}, type="tags") == ["toxic"]
    assert suggested({"evaluator": "perplexity"}, type="tags") == []


def test_a_suggestion_says_whose_it_is_and_is_shown_only_where_the_schema_says_so() -> None:
    field = {"type": "rating", "suggest": [{"evaluator": "toxicity", "above": 0.5, "value": "bad"}]}
    schema = parse_schema(asks(field))
    assert suggestions(schema, SCORES) == {"x": [Suggested("bad", "toxicity", "response", 0.9)]}
    assert suggestions(parse_schema(asks(field, shown=False)), SCORES) == {}
    assert suggestions(schema, ()) == {}


def test_the_annotator_s_own_schema_counts(database: Database) -> None:
    store = SchemaStore(database, ManualClock(START))
    add_cases(database, [replace(flagged(1), scores=SCORES)])
    assert suggestions_for(database, store, 1) == {}  # the default suggests nothing
    field = {"type": "rating", "suggest": [{"evaluator": "toxicity", "above": 0.5, "value": "bad"}]}
    store.put("chat", asks(field), by="ada")
    with database.session() as session:
        claim = {"case_id": 1, "version": 2, "is_adjudication": False, "claimed_at": START}
        session.add(ClaimRow(annotator="ann", schema_version=1, state=ClaimState.HELD, **claim))
        session.add(ClaimRow(annotator="old", schema_version=0, state=ClaimState.HELD, **claim))
    store.put("chat", asks(field, shown=False), by="ada")
    assert [each.value for each in suggestions_for(database, store, 1, " ann")["x"]] == ["bad"]
    assert suggestions_for(database, store, 1, "old") == {}
    assert suggestions_for(database, store, 1) == {}
    assert suggestions_for(database, store, 1, "nobody") == {}
    with pytest.raises(Missing, match="there is no case 9"):
        suggestions_for(database, store, 9, "ann")
