"""Cases of a second endpoint whose annotators are asked everything: every type of field, two labels a case, alternatives.

Two cases are disputed, and :data:`OPEN` are open, one of them made of text that must never become HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import func, select

from collector.catalog import FEEDBACK_SCHEMA
from dashboard.services import ConsoleServices
from relabel.alternatives import answered, stored
from relabel.case import Reason, ReasonKind, RecordedScore
from relabel.conversation import Conversation
from relabel.models import CaseRow
from relabel.schema_store import SchemaStore
from relabel.selection.case_writer import Flagged, store
from tests.browser.conversations import PROBE

ENDPOINT: Final = "summaries"
OPEN: Final = 6
EMOJI_PROMPT: Final = "Summarise 👩‍🚀: the crew said thanks, thanks, and 🚀 thanks again."
EMOJI_ANSWER: Final = "👍🏽 The crew said thanks. 🚀 They said thanks twice, really thanks."
SHADOW_ANSWER: Final = "The crew is grateful."
RICH: Final[Mapping[str, Any]] = {
    "guidelines": "Judge the answer, not the question.\nWhen two answers are equally good, say so.",
    "annotators": 2,
    "show_suggestions": True,
    "fields": [
        {"name": "better", "type": "preference", "title": "Which answer is better?", "required": True},
        {
            "name": "quality",
            "type": "rating",
            "title": "Quality of the recorded answer",
            "scale": 5,
            "good_from": 4,
            "required": True,
        },
        {"name": "effort", "type": "scale", "title": "Effort to correct it", "scale": 3},
        {
            "name": "topic",
            "type": "choice",
            "title": "Topic",
            "help": "What the request is about.",
            "required": True,
            "options": ["Delivery", "Refund", "Product", PROBE],
        },
        {
            "name": "flaws",
            "type": "multiple_choice",
            "title": "Flaws",
            "options": ["Wrong", "Rude", "Too long", "Off topic"],
            "suggest": [{"evaluator": "toxicity", "above": 0.5, "value": "Rude"}],
        },
        {"name": "parts", "type": "spans", "title": "Parts", "options": ["Error", "Good"], "of": "response"},
        {"name": "asked", "type": "spans", "title": "What is asked", "options": ["Task"], "of": "request"},
        {"name": "remark", "type": "text", "title": "Why"},
        {"name": "corrected", "type": "corrected_answer"},
        {"name": "tags", "type": "tags"},
    ],
}


def fill(services: ConsoleServices) -> None:
    """Ask :data:`RICH` of the endpoint's annotators, and store its cases, two of them with labels that disagree."""
    assert isinstance(services.schemas, SchemaStore)
    services.schemas.put(ENDPOINT, RICH, by="ann")
    for place in range(OPEN):
        words = PROBE if place == OPEN - 2 else "all is well"
        add_case(services, f"Summarise report {place}: {words}.", f"Report {place} says: {words}.", place)
    for place in range(2):
        add_case(services, f"Summarise dispute {place}.", f"Dispute {place} is about thanks.", 2)
        for annotator, quality in (("Ann", 5), ("Bob", 2)):
            label(services, annotator, {"better": "answer", "quality": quality, "topic": "Refund"})


def label(
    services: ConsoleServices, annotator: str, values: Mapping[str, Any], comment: str | None = None
) -> int:
    """Let ``annotator`` label their next case; its id."""
    case = services.queue.claim(annotator, ENDPOINT)
    assert case is not None
    services.queue.answer(case.id, annotator, values, comment or f"{annotator} says so {PROBE}")
    return case.id


def add_case(
    services: ConsoleServices,
    question: str,
    answer: str,
    kind: int = 1,
    *,
    shadow: str | None = SHADOW_ANSWER,
) -> int:
    """A case that is handed out before all that there are, with a shadow's answer, a tool and feedback; its id."""
    now = services.clock.now()
    with services.database.session() as session:
        number = session.scalar(select(func.count()).select_from(CaseRow)) or 0
        record = _record(now, number, question, answer, kind)
        store(session, ENDPOINT, [record], {}, now)
        session.flush()
        row = session.scalars(
            select(CaseRow).where(CaseRow.databricks_request_id == record.databricks_request_id)
        ).one()
        if shadow is not None:
            message = {"role": "assistant", "content": shadow}
            row.alternatives = stored([answered("shadow", message, served_entity="llama-small-v4")])
        case_id = row.id
    say(services, case_id, name="thumbs", value=0.0, label="down", comment=f"Not what I asked. {PROBE}")
    return case_id


def say(services: ConsoleServices, case_id: int, **values: Any) -> None:
    """Feedback of a user on the record of a case; ``values`` are columns of the table."""
    case, now = services.queue.get(case_id), services.clock.now()
    given = {
        "feedback_id": f"feedback-{case_id}-{now.timestamp()}",
        "databricks_request_id": case.databricks_request_id,
        "request_date": case.request_time.date(),
        "request_time": case.request_time,
        "feedback_time": now,
        "endpoint": ENDPOINT,
        "source": "user",
        **values,
    }
    services.catalog.tables(ENDPOINT).feedback.append(pa.Table.from_pylist([given], schema=FEEDBACK_SCHEMA))


def _record(now: datetime, number: int, question: str, answer: str, kind: int) -> Flagged:
    messages = [
        {"role": "system", "content": "You summarise. Be brief."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    tool = {
        "type": "function",
        "function": {
            "name": "fetch_report",
            "description": f"Fetches a report {PROBE}",
            "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
        },
    }
    digits = f"{int(now.timestamp()) * 1000:012x}"
    return Flagged(
        databricks_request_id=f"{digits[:8]}-{digits[8:]}-7000-8000-{number:012x}",
        request_time=now - timedelta(minutes=2),
        served_entity="llama-small-t05",
        variant="v3",
        model="llama-small",
        prompt_text="\n".join(message["content"] for message in messages[:2]),
        response_text=answer,
        conversation=Conversation(messages, True, [tool]),
        reasons=_reasons(100 + number, kind),
        scores=(
            RecordedScore("toxicity", "response", 0.71, "toxic"),
            RecordedScore("perplexity", "response", 512.0),
        ),
    )


def _reasons(priority: int, kind: int) -> tuple[Reason, ...]:
    score = Reason(
        rule="toxic",
        kind=ReasonKind.SCORE,
        priority=priority,
        evaluator="toxicity",
        target="response",
        score=0.71,
        direction="above",
        threshold=0.5,
    )
    shadow = Reason(
        rule="shadow",
        kind=ReasonKind.SHADOW_DISAGREEMENT,
        priority=priority,
        detail=f"similarity 0.42 {PROBE if kind == OPEN - 2 else ''}",
    )
    complaint = Reason(rule="thumbs", kind=ReasonKind.FEEDBACK, priority=priority, detail="thumbs down")
    drawn = Reason(rule="sample", kind=ReasonKind.RANDOM, priority=priority)
    chosen = {0: (drawn,), 1: (score, shadow, complaint), 2: (score, shadow), OPEN - 2: (shadow, drawn)}
    return chosen.get(kind, (score,))
