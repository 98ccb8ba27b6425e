"""Cases as another tool shows them: the conversation as lines of text, and the texts that are to be judged.

Invariant: reading holds no transaction open between two pages, and shows nobody what others have said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, or_, select

from relabel.case import CaseState, RecordedScore
from relabel.label_schema import Texts
from relabel.models import CaseRow
from servelens.database import Database
from servelens.errors import Invalid

UNFINISHED: Final = (CaseState.OPEN, CaseState.CLAIMED)
_CASES_PER_READ: Final = 200


@dataclass(frozen=True, slots=True)
class Line:
    """Something that was said, and by whom (an OpenAI role)."""

    author: str
    text: str


@dataclass(frozen=True, slots=True)
class Choosable:
    """An alternative to the recorded answer: the ``id`` that a preference names it by, and what it says."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCase:
    """A case that is to be labeled elsewhere. ``dialogue`` ends with the recorded answer where there is one."""

    id: int
    endpoint: str
    databricks_request_id: str
    dialogue: tuple[Line, ...]
    prompt: str
    answer: str
    alternatives: tuple[Choosable, ...]
    scores: tuple[RecordedScore, ...]


def texts_of(row: CaseRow) -> Texts:
    """What spans of the case are of, and which alternatives it has."""
    ids = tuple(str(alternative["id"]) for alternative in row.alternatives or ())
    return Texts(row.prompt_text or "", row.response_text or "", ids)


def task_cases(
    database: Database, endpoint: str, *, state: CaseState = CaseState.OPEN, limit: int | None = None
) -> Iterator[TaskCase]:
    """The unfinished cases of ``endpoint`` in ``state``, at most ``limit``, in the order in which they are claimed.

    Raises :class:`~servelens.errors.Invalid` for a state in which nobody is asked any more and a limit under 1, and
    :class:`~servelens.errors.Unavailable` when the database fails.
    """
    if state not in UNFINISHED:
        raise Invalid(
            f"a case that is {state} is not given out", field="state", fix=f"Use {' or '.join(UNFINISHED)}."
        )
    if limit is not None and limit < 1:
        raise Invalid(f"{limit} is out of range", field="limit", fix="Use a number over 0.")
    return _read(database, endpoint, state, limit)


def _read(database: Database, endpoint: str, state: CaseState, limit: int | None) -> Iterator[TaskCase]:
    wanted = select(CaseRow).where(CaseRow.endpoint == endpoint, CaseRow.state == state)
    wanted = wanted.order_by(CaseRow.priority.desc(), CaseRow.id)
    page = wanted
    left = limit
    while left is None or left > 0:
        size = _CASES_PER_READ if left is None else min(left, _CASES_PER_READ)
        with database.session(read_only=True) as session:
            rows = session.scalars(page.limit(size)).all()
            cases = [_task_case(row) for row in rows]
            if rows:
                priority, case_id = rows[-1].priority, rows[-1].id
        yield from cases
        if len(cases) < size:
            return
        left = None if left is None else left - len(cases)
        page = wanted.where(
            CaseRow.priority <= priority,
            or_(CaseRow.priority < priority, and_(CaseRow.priority == priority, CaseRow.id > case_id)),
        )


def _task_case(row: CaseRow) -> TaskCase:
    return TaskCase(
        id=row.id,
        endpoint=row.endpoint,
        databricks_request_id=row.databricks_request_id,
        dialogue=tuple(_line(message) for message in row.messages),
        prompt=row.prompt_text or "",
        answer=row.response_text or "",
        alternatives=tuple(Choosable(str(each["id"]), str(each["text"])) for each in row.alternatives or ()),
        scores=tuple(RecordedScore(**score) for score in row.scores),
    )


def _line(message: Mapping[str, Any]) -> Line:
    parts = [_content(message.get("content")), message.get("refusal")]
    calls = message.get("tool_calls") or (
        [message["function_call"]] if message.get("function_call") else None
    )
    if calls:
        parts.append(json.dumps(calls, ensure_ascii=False, indent=2))
    return Line(str(message["role"]), "\n".join(part for part in parts if isinstance(part, str) and part))


def _content(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence):
        return "\n".join(map(_part, content))
    return json.dumps(content, ensure_ascii=False)


def _part(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(part, Mapping) and part.get("type") == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        # A picture inside the address would be megabytes of letters.
        return f"[image {url}]" if isinstance(url, str) and not url.startswith("data:") else "[image]"
    return json.dumps(part, ensure_ascii=False)
