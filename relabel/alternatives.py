"""Other answers to a case's question, which annotators compare with the recorded one.

Invariants: an answer is there once, whatever the number of times that it is offered; and the answers of a case stand from its
first label on, and while somebody else has it before them: of a label that prefers one it is known what it was compared with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from collector.catalog import EndpointTables
from relabel.case import Alternative, Case, CaseState, checked_annotator
from relabel.conversation import read_conversation, storable
from relabel.label import ANSWER, MAX_CORRECTED_ANSWER_LENGTH, TIE, check_text
from relabel.models import CaseRow, ClaimRow, ClaimState, HistoryRow
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing, Unavailable

MAX_ALTERNATIVES: Final = 8
EVENT: Final = "alternative"
"""The history's word for an answer that was added."""

_LATE: Final = timedelta(hours=1)
_MAX_NAME_LENGTH: Final = 255
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHADOW_COLUMNS: Final = (
    *("databricks_request_id", "shadow_of", "request_time", "request", "response"),
    *("prompt_text", "response_text", "served_entity", "model"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """What another answer is wanted to: OpenAI chat messages up to the recorded answer, and the tools that were offered."""

    endpoint: str
    databricks_request_id: str
    request_time: datetime
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Presented:
    """One of the answers as an annotator sees it. ``key`` (``A``, ``B``, …) says nothing but its place; ``id`` is what a label
    prefers it by, and tells what it is: it must not reach the annotator.
    """

    key: str
    id: str
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Added:
    """All other answers that a case has now, and how many of them are new."""

    added: int
    alternatives: tuple[Alternative, ...]


class Alternatives:
    """Reads and adds them. Every method is one transaction and may be called from any thread; all raise
    :class:`~servelens.errors.Missing` for an unknown case and :class:`~servelens.errors.Unavailable`.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def question(self, case_id: int, annotator: str | None = None) -> Question:
        """What to answer. Raises :class:`~servelens.errors.Conflict` when no answer can be added any more, and
        :class:`~servelens.errors.Invalid` when the record has kept no question.
        """
        with self._database.session(read_only=True) as session:
            row = session.get(CaseRow, case_id)
            if row is None:
                raise _no_case(case_id)
            self._check_open(session, row, annotator)
            asked = row.messages[:-1] if row.answered else row.messages
            if not asked:
                raise Invalid(
                    f"case {case_id} holds an answer, but not what was asked",
                    field="case_id",
                    fix="Upload another answer instead.",
                )
            return Question(
                endpoint=row.endpoint,
                databricks_request_id=row.databricks_request_id,
                request_time=row.request_time,
                messages=tuple(asked),
                tools=None if row.tools is None else tuple(row.tools),
            )

    def add(
        self, case_id: int, alternatives: Sequence[Alternative], *, actor: str, annotator: str | None = None
    ) -> Added:
        """Add those that are not there yet. An answer that says what the recorded one says is not
        added. ``annotator`` may have the case before them; nobody else.

        Raises :class:`~servelens.errors.Conflict` when somebody else has it, or has labeled it, and
        :class:`~servelens.errors.Invalid` for more than :data:`MAX_ALTERNATIVES`.
        """
        with self._database.session() as session:
            row = session.scalar(select(CaseRow).where(CaseRow.id == case_id).with_for_update())
            if row is None:
                raise _no_case(case_id)
            known = [Alternative(**each) for each in row.alternatives or ()]
            new = unlike(_recorded(row), known, alternatives)
            if new:
                self._check_open(session, row, annotator)
                if len(known) + len(new) > MAX_ALTERNATIVES:
                    raise Invalid(
                        f"case {case_id} has {len(known)} other answers",
                        field="alternatives",
                        fix=f"Compare at most {MAX_ALTERNATIVES}.",
                    )
                _put(session, row, known, new, self._clock.now(), actor)
            return Added(len(new), (*known, *new))

    def add_shadow_answers(
        self, case_id: int, tables: EndpointTables, *, actor: str, annotator: str | None = None
    ) -> Added:
        """Add what shadows answered to the case's request. Raises as :meth:`add`."""
        with self._database.session(read_only=True) as session:
            row = session.get(CaseRow, case_id)
            if row is None:
                raise _no_case(case_id)
            request_id, moment = row.databricks_request_id, row.request_time
        until = moment + timedelta(microseconds=1)
        found = shadow_answers(tables, [request_id], moment, until).get(request_id, [])
        return self.add(case_id, found, actor=actor, annotator=annotator)

    def _check_open(self, session: Session, row: CaseRow, annotator: str | None) -> None:
        """The answer is the same for whatever keeps others from adding one: it must not tell a gold case from another."""
        me = None if annotator is None else checked_annotator(annotator)
        held = select(ClaimRow.annotator).where(
            ClaimRow.case_id == row.id,
            ClaimRow.state == ClaimState.HELD,
            ClaimRow.lease_expires_at > self._clock.now(),
        )
        others = [name for name in session.scalars(held) if name != me]
        if row.state not in (CaseState.OPEN, CaseState.CLAIMED) or row.labeled or others:
            raise Conflict(
                f"the answers of case {row.id} stand, for others have it or have finished it",
                field="case_id",
                fix="Add answers before a case is labeled.",
            )


def add_late(
    session: Session,
    case_id: int,
    databricks_request_id: str,
    alternatives: Iterable[Alternative],
    now: datetime,
    *,
    actor: str,
) -> None:
    """Give a case that is of this record, and that nobody has touched, the answers that came after it was made. Any other
    case keeps what it has.
    """
    fresh = select(CaseRow).where(
        CaseRow.id == case_id,
        CaseRow.databricks_request_id == databricks_request_id,
        CaseRow.state == CaseState.OPEN,
        CaseRow.taken == 0,
    )
    row = session.scalar(fresh.with_for_update())
    if row is None:
        return
    known = [Alternative(**each) for each in row.alternatives or ()]
    new = unlike(_recorded(row), known, alternatives)[: MAX_ALTERNATIVES - len(known)]
    if new:
        _put(session, row, known, new, now, actor)


def stored(alternatives: Iterable[Alternative]) -> list[dict[str, Any]]:
    """As :attr:`relabel.models.CaseRow.alternatives` holds them."""
    return [asdict(each) for each in alternatives]


def shadow_answers(
    tables: EndpointTables, request_ids: Sequence[str], since: datetime, until: datetime
) -> Mapping[str, list[Alternative]]:
    """What shadows answered to the invocations ``request_ids``, which were made from ``since`` to before ``until``; by request
    id, the earliest first. One that failed, or is not in the table yet (it comes after the answer that it mirrors), is not there.

    Raises :class:`~servelens.errors.Unavailable` when the table cannot be read.
    """
    rows = tables.payload.scan(since=since, until=until + _LATE).filter(
        pl.col("is_shadow"),
        pl.col("shadow_of").is_in(list(request_ids)),
        pl.col("status_code").is_between(200, 299),
    )
    try:
        frame = rows.select(_SHADOW_COLUMNS).collect().sort("request_time", "databricks_request_id")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Unavailable(f"the inference table cannot be read: {error}", field=tables.payload.uri) from error
    found: dict[str, list[Alternative]] = {}
    for row in frame.iter_rows(named=True):
        conversation = read_conversation(
            row["request"], row["response"], row["prompt_text"], row["response_text"]
        )
        if conversation is None or not conversation.answered:
            continue
        answers = found.setdefault(row["shadow_of"], [])
        if len(answers) < MAX_ALTERNATIVES:
            answers.append(
                answered(
                    "shadow",
                    conversation.messages[-1],
                    served_entity=row["served_entity"],
                    model=row["model"],
                    databricks_request_id=row["databricks_request_id"],
                )
            )
    return found


def uploaded(text: str, *, served_entity: str | None = None, model: str | None = None) -> Alternative:
    """An answer that somebody brings. Raises :class:`~servelens.errors.Invalid` that names the field."""
    check_text(text, "text", MAX_CORRECTED_ANSWER_LENGTH)
    if not text.strip():
        raise Invalid("it is blank", field="text", fix="Give the answer.")
    for name, value in (("served_entity", served_entity), ("model", model)):
        check_text(value or "", name, _MAX_NAME_LENGTH)
    message = {"role": "assistant", "content": text}
    return answered("uploaded", message, served_entity=served_entity, model=model)


def answered(
    source: str,
    message: Mapping[str, Any],
    *,
    served_entity: str | None = None,
    model: str | None = None,
    databricks_request_id: str | None = None,
) -> Alternative:
    """An alternative of an OpenAI assistant message. Its id is made of what it says, so the same one is the same."""
    kept = storable(dict(message))
    digest = hashlib.sha256(_canonical(kept).encode()).hexdigest()
    return Alternative(
        id=f"alt-{digest[:16]}",
        source=source,
        message=kept,
        text=_said(kept),
        served_entity=storable(served_entity),
        model=storable(model),
        databricks_request_id=databricks_request_id,
    )


def presented(case: Case, annotator: str) -> tuple[Presented, ...]:
    """The recorded answer and the others in an order that does not tell which is which: by lot, drawn anew for every case and
    annotator, and always the same to the same one. So no place is favoured, over many cases.
    """

    def lot(answer: tuple[str, Mapping[str, Any]]) -> bytes:
        return hashlib.sha256(f"{case.id}\0{annotator}\0{answer[0]}".encode()).digest()

    answers = [(each.id, each.message) for each in case.alternatives]
    if case.answered:
        answers.append((ANSWER, case.messages[-1]))
    return tuple(
        Presented(_LETTERS[place], name, message)
        for place, (name, message) in enumerate(sorted(answers, key=lot))
    )


def preferred(case: Case, annotator: str, key: str) -> str:
    """What a label says of an annotator who chose ``key`` of :func:`presented`, or :data:`~relabel.label.TIE`. Raises
    :class:`~servelens.errors.Invalid` when there is no such answer.
    """
    if key == TIE:
        return TIE
    shown = presented(case, annotator)
    for each in shown:
        if each.key == key:
            return each.id
    keys = ", ".join([*(each.key for each in shown), TIE])
    raise Invalid(f"there is no answer {key!r}"[:200], field="preferred", fix=f"Use one of: {keys}.")


def unlike(
    recorded: Mapping[str, Any] | None, known: Sequence[Alternative], offered: Iterable[Alternative]
) -> list[Alternative]:
    """Of ``offered``, each that says what neither the ``recorded`` answer nor another one says."""
    said = {_canonical(each.message) for each in known}
    if recorded is not None:
        said.add(_canonical(recorded))
    new: list[Alternative] = []
    for each in offered:
        words = _canonical(each.message)
        if words not in said:
            said.add(words)
            new.append(each)
    return new


def _recorded(row: CaseRow) -> Mapping[str, Any] | None:
    return row.messages[-1] if row.answered else None


def _put(
    session: Session,
    row: CaseRow,
    known: Sequence[Alternative],
    new: Sequence[Alternative],
    now: datetime,
    actor: str,
) -> None:
    row.alternatives = stored([*known, *new])
    row.updated_at = now
    session.add_all(
        HistoryRow(
            case_id=row.id,
            at=now,
            from_state=row.state,
            to_state=row.state,
            actor=actor,
            detail=f"{each.source} {each.id}",
            event=EVENT,
        )
        for each in new
    )


def _canonical(message: Mapping[str, Any]) -> str:
    return json.dumps(message, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _said(message: Mapping[str, Any]) -> str:
    """The text of an assistant message; of one that calls tools, the calls as JSON."""
    content = message.get("content")
    if isinstance(content, str) and content:
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        text = "".join(part for part in parts if isinstance(part, str))
        if text:
            return text
    for key in ("refusal", "tool_calls", "function_call"):
        value = message.get(key)
        if value:
            return value if isinstance(value, str) else _canonical({key: value})
    return ""


def _no_case(case_id: int) -> Missing:
    return Missing(f"there is no case {case_id}", field="case_id")
