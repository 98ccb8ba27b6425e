from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.evaluator import MODEL_ERROR
from tests.unit.evaluators.scorers.rules import one, refused, rule

PERSON: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "label", "path", "asked"),
    [
        ('{"name": "Ada", "tags": ["math"]}', "valid", None, None),
        ('{"name": 7}', "invalid_schema", "$.name", 'type: "string"'),
        ('{"tags": []}', "invalid_schema", "$", 'required: ["name"]'),
        ('{"name": "A", "tags": ["a", "secret-secret"]}', "invalid_schema", "$.tags[1]", "maxLength: 5"),
        ('{"name": "Ada", "age": 36}', "invalid_schema", "$", "additionalProperties: false"),
        ("[]", "invalid_schema", "$", 'type: "object"'),
    ],
)
def test_the_first_thing_that_is_not_as_asked(
    text: str, label: str, path: str | None, asked: str | None
) -> None:
    score = one(rule("json_schema", schema=PERSON), text)
    assert (score.value, score.label) == (float(label == "valid"), label)
    assert score.details == ({} if path is None else {"path": path, "rule": asked})
    assert "secret" not in str(score.details)


@pytest.mark.parametrize(
    "text", ["", "{", "{'a': 1}", '{"a": NaN}', "[1,]", '{"a": 1} and more', "Sure: {}", "[" * 20_000]
)
def test_what_is_no_json(text: str) -> None:
    score = one(rule("json_schema"), text or "x")
    assert (score.value, score.label) == (0, "invalid_json")
    assert score.details["error"]


def test_any_json_will_do_without_a_schema() -> None:
    for text in ("{}", " [1, 2.5e3] ", '"a"', "null", "1" * 30):
        assert one(rule("json_schema"), text).label == "valid"


@pytest.mark.parametrize(
    "text",
    ['```json\n{"name": "Ada"}\n```', '\n```\n{"name": "Ada"}```\n', '```JSON\r\n{"name": "Ada"}\r\n```'],
)
def test_a_code_block_is_json_where_that_is_allowed(text: str) -> None:
    assert one(rule("json_schema", schema=PERSON), text).label == "invalid_json"
    allowing = rule("json_schema", schema=PERSON, fenced="allow")
    assert one(allowing, text).label == "valid"
    assert one(allowing, '{"name": "Ada"}').label == "valid"
    assert one(allowing, f"Here it is:\n{text}").label == "invalid_json"
    assert one(allowing, text[:-4] + " " * 1_000_000 + "x").label == "invalid_json"


def test_a_schema_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON))
    from_file = rule("json_schema", schema_file=str(path))
    assert one(from_file, '{"name": 7}').label == "invalid_schema"
    assert from_file.version == rule("json_schema", schema=PERSON).version
    path.write_text("{")
    refused("json_schema", r"schema_file .*person.json is not JSON", schema_file=str(path))
    refused(
        "json_schema",
        "schema_file /nowhere/x.json cannot be read: No such file",
        schema_file="/nowhere/x.json",
    )
    refused("json_schema", "schema or schema_file, not both", schema={}, schema_file=str(path))
    refused("json_schema", "schema_file is the path of a file, not 7", schema_file=7)


def test_references_lead_to_the_schema_itself_or_nowhere() -> None:
    tree = {"$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"}
    assert one(rule("json_schema", schema=tree), "[[], [[]]]").label == "valid"
    assert one(rule("json_schema", schema=tree), "[[], [1]]").details["path"] == "$[1][0]"
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert one(rule("json_schema", schema=meta), '{"type": "objekt"}').label == "invalid_schema"
    refused("json_schema", r"\$ref '#/\$defs/leaf' leads to nothing", schema={"$ref": "#/$defs/leaf"})
    refused(
        "json_schema",
        r"\$ref 'http://127.0.0.1:9/person.json' leads to nothing in it, and nothing is fetched",
        schema={"$ref": "http://127.0.0.1:9/person.json"},
    )
    elsewhere = {"$id": "https://example.com/a.json", "items": {"$ref": "b.json"}}
    assert one(rule("json_schema", schema=elsewhere), "[1]").unscored_reason == MODEL_ERROR


def test_schemas_and_options_that_are_none() -> None:
    refused(
        "json_schema", r"schema is no JSON schema: 'objekt' is not valid.*\$.type", schema={"type": "objekt"}
    )
    refused("json_schema", r"schema is an object .*, not 'object'", schema="object")
    refused("json_schema", "no draft 'http://example.com/d9'", schema={"$schema": "http://example.com/d9"})
    refused("json_schema", "fenced is one of allow, forbid, not True", fenced=True)


def test_the_draft_is_what_the_schema_says() -> None:
    # An array of schemas under "items" is a tuple in draft 7, and no schema in 2020-12.
    pair = {"items": [{"type": "integer"}, {"type": "string"}]}
    refused("json_schema", "schema is no JSON schema", schema=pair)
    seventh = rule("json_schema", schema={"$schema": "http://json-schema.org/draft-07/schema#", **pair})
    assert [one(seventh, text).value for text in ('[1, "a"]', '["a", 1]')] == [1, 0]
