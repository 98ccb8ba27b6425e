"""Cases for tests of the exchange with other labeling tools: every type of field, and texts in which counting differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import update

from relabel.case import RecordedScore
from relabel.conversation import Conversation
from relabel.label_schema import Field, FieldType, LabelSchema, Suggestion, default_schema
from relabel.models import CaseRow
from servelens.database import Database
from servelens.errors import Missing
from tests.relabel_cases import add_cases, flagged

PROMPT = "my mail 😀 is a@b.c"
ANSWER = "you 😀 fool\nreally <script>alert(1)</script>"
SHADOW = "shadow-1"

_BAD = Suggestion(evaluator="toxicity", above=0.5, value="bad")
EVERYTHING = LabelSchema(
    version=3,
    show_suggestions=True,
    guidelines='Be <b>kind</b> & "fair"',
    fields=(
        Field(name="rating", type=FieldType.RATING, required=True, decides=True, suggest=(_BAD,)),
        Field(name="quality", type=FieldType.SCALE, scale=5, suggest=(replace(_BAD, value=1),)),
        Field(name="percent", type=FieldType.SCALE, scale=100, suggest=(replace(_BAD, value=7),)),
        Field(name="topic", type=FieldType.CHOICE, options=("law", "health & care"), help="Which <topic>?"),
        Field(
            name="issues",
            type=FieldType.MULTIPLE_CHOICE,
            options=("rude", "wrong", "long"),
            suggest=(replace(_BAD, value="rude"),),
        ),
        Field(name="marks", type=FieldType.SPANS, options=("insult", "claim")),
        Field(name="asked", type=FieldType.SPANS, options=("pii",), of="request"),
        # Both tools have something else of this name.
        Field(name="answer", type=FieldType.CORRECTED_ANSWER, title="$ A better answer"),
        Field(name="note-1", type=FieldType.TEXT),
        Field(name="Better", type=FieldType.PREFERENCE),
        Field(name="tags", type=FieldType.TAGS, suggest=(replace(_BAD, value="toxic"),)),
    ),
)
"""Every type of field."""


@dataclass(frozen=True)
class FixedSchemas:
    """The same schema for all endpoints; earlier versions, and the default one as version 0."""

    schema: LabelSchema
    earlier: tuple[LabelSchema, ...] = ()

    def current(self, endpoint: str) -> LabelSchema:
        return self.schema

    def version(self, endpoint: str, version: int) -> LabelSchema:
        for schema in (self.schema, *self.earlier, default_schema()):
            if schema.version == version:
                return schema
        raise Missing(f"{endpoint!r} has no version {version}")


def add_rich_cases(database: Database, numbers: range = range(1, 4)) -> None:
    """Cases 1, 2, 3 of the endpoint ``chat``, about records of the same numbers, each with an alternative answer."""
    records = []
    for number in numbers:
        messages = [
            {"role": "user", "content": f"{PROMPT}"},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": ANSWER},
        ]
        records.append(
            replace(
                flagged(number),
                prompt_text=PROMPT,
                response_text=ANSWER,
                conversation=Conversation(messages, True, None),
                scores=(RecordedScore("toxicity", "response", 0.93),),
            )
        )
    add_cases(database, records)
    other = {"id": SHADOW, "source": "shadow", "message": {"role": "assistant"}, "text": "hello 😀"}
    with database.session() as session:
        session.execute(update(CaseRow).values(alternatives=[other]))


def origin(number: int, *, schema_version: int = 3, **changed: Any) -> Mapping[str, Any]:
    """What a task says of its case."""
    return {
        "case_id": number,
        "databricks_request_id": f"request-{number:06d}",
        "endpoint": "chat",
        "schema_version": schema_version,
        **changed,
    }
