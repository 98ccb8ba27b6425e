"""Reads an endpoint's labels for agreement, a chunk at a time, into columns of numbers.

Invariants: labels of different schema versions meet in one column only where the field's name, type and scale are the same; a
label whose schema version is unknown is counted, not guessed at. Where a set or spans are asked for and nothing is answered,
the answer is the empty one; of every other field it is missing.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, Text, cast, func, or_, select

from relabel.agreement.schema_at import schema_at
from relabel.case import CaseState
from relabel.label import Rating
from relabel.label_schema import Field, FieldType, LabelSchema, Schemas
from relabel.models import CaseRow, ClaimRow, ClaimState, DecisionRow, LabelRow
from servelens.database import Database

CASES_AT_ONCE: Final = 5_000
_MOST_KEPT: Final = 100_000
COMPARABLE: Final = frozenset(FieldType) - {FieldType.TEXT, FieldType.CORRECTED_ANSWER}
"""Types whose answers can be equal or not; free text is neither."""
NO_VERDICT: Final = -1


class Asked(NamedTuple):
    """What makes fields of two schema versions the same."""

    name: str
    type: FieldType
    scale: int | None


class Given(NamedTuple):
    """The parts of a label that fields are read from."""

    rating: Rating | None
    tags: Sequence[str]
    preferred: str | None
    values: Mapping[str, Any]


@dataclass(slots=True)
class Column:
    """The answers to one field, one entry a label: its case, who gave it, and its place in ``categories``."""

    asked: Asked
    decides: bool
    categories: list[Hashable]
    codes_of: dict[Hashable, int]
    versions: set[int] = field(default_factory=set)
    cases: array[int] = field(default_factory=lambda: array("q"))
    people: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, case: int, person: int, answer: Hashable) -> None:
        """One more answer."""
        code = self.codes_of.get(answer)
        if code is None:
            code = self.codes_of[answer] = len(self.categories)
            self.categories.append(answer)
        self.cases.append(case)
        self.people.append(person)
        self.codes.append(code)


@dataclass(slots=True)
class LabelTable:
    """All labels of an endpoint.

    ``columns`` hold the labels that people gave without knowing others': neither adjudications nor labels of gold cases. The
    four arrays from ``label_ids`` on have an entry for each of all labels but those of gold cases; a *verdict* numbers what a
    label says in the fields that decide, :data:`NO_VERDICT` where it says nothing there, and ``verdict_fields`` tells which
    fields a verdict is of. ``adjudicated`` are the ids of labels that decided a disagreement.
    """

    people: list[str] = field(default_factory=list)
    columns: dict[Asked, Column] = field(default_factory=dict)
    independent: int = 0
    label_ids: array[int] = field(default_factory=lambda: array("q"))
    cases: array[int] = field(default_factory=lambda: array("q"))
    givers: array[int] = field(default_factory=lambda: array("q"))
    verdicts: array[int] = field(default_factory=lambda: array("q"))
    adjudications: Counter[int] = field(default_factory=Counter)
    counts: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    gold: dict[int, list[bool]] = field(default_factory=dict)
    skips: Counter[int] = field(default_factory=Counter)
    decisions: dict[int, tuple[int | None, int]] = field(default_factory=dict)
    newest_decision: int = 0
    unread: Counter[int] = field(default_factory=Counter)
    verdict_fields: dict[int, int] = field(default_factory=dict)
    adjudicated: set[int] = field(default_factory=set)

    def person(self, name: str, known: dict[str, int]) -> int:
        """The number of a person."""
        number = known.get(name)
        if number is None:
            number = known[name] = len(self.people)
            self.people.append(name)
        return number


def newest_decision(database: Database) -> int:
    """The id of the newest decision of all, 0 when there is none."""
    with database.session(read_only=True) as session:
        return session.scalar(select(func.max(DecisionRow.id))) or 0


def read_labels(
    database: Database, endpoint: str, schemas: Schemas | None = None, *, cases_at_once: int = CASES_AT_ONCE
) -> LabelTable:
    """All labels of ``endpoint`` up to now; without ``schemas`` every label is of the default one.

    No transaction stays open between two reads. Raises :class:`~servelens.errors.Unavailable` when the database fails.
    """
    table = LabelTable(newest_decision=newest_decision(database))
    known: dict[str, int] = {}
    gold = _gold(database, endpoint)
    readers = _Readers(endpoint, schemas)
    cases = _cases(database, endpoint)
    for start in range(0, len(cases), cases_at_once):
        chunk = cases[start : start + cases_at_once]
        with database.session(read_only=True) as session:
            rows = session.execute(_labels_of(chunk)).all()
            # In the order of their ids, so that the newest of a case comes last.
            for case, label, labels in session.execute(_decisions_of(chunk, table.newest_decision)):
                table.decisions[case] = (label, labels)
        for label_id, case, annotator, judged, seconds, version, *parts in rows:
            person = table.person(annotator, known)
            table.counts[person] += 1
            if seconds is not None:
                table.seconds.setdefault(person, []).append(seconds)
            if judged:
                table.adjudications[person] += 1
            read = readers.read(version, *parts)
            if read is None:
                table.unread[version] += 1
                continue
            if case in gold:
                right = None if judged else readers.is_right(read, gold[case])
                if right is not None:
                    table.gold.setdefault(person, []).append(right)
                continue
            table.label_ids.append(label_id)
            table.cases.append(case)
            table.givers.append(person)
            table.verdicts.append(read.verdict)
            if judged:
                table.adjudicated.add(label_id)
                continue
            table.independent += 1
            for asked, answer in read.answers:
                column = table.columns.get(asked) or _new_column(table, asked, read.reader)
                column.versions.add(version)
                column.add(case, person, answer)
    table.verdict_fields = readers.verdict_fields
    for name, skipped in _skips(database, endpoint).items():
        table.skips[table.person(name, known)] = skipped
    return table


def answer_in(given: Given, asked: Field) -> Hashable | None:
    """One field of a label, in a form that can be compared; ``None`` where it is missing."""
    match asked.type:
        case FieldType.RATING if asked.scale is None:
            return None if given.rating is None else str(given.rating)
        case FieldType.PREFERENCE:
            return given.preferred
        case FieldType.TAGS:
            return comparable(asked, given.tags)
    return comparable(asked, given.values.get(asked.name))


def comparable(asked: Field, value: Any) -> Hashable | None:
    """``value`` of a field, so that equal answers are equal: sets without order, tags without case."""
    if asked.type is FieldType.TAGS:
        return frozenset(tag.casefold() for tag in value or ())
    if asked.type is FieldType.MULTIPLE_CHOICE:
        return frozenset(value or ())
    if asked.type is FieldType.SPANS:
        return tuple(sorted((span["start"], span["end"], span["label"]) for span in value or ()))
    return None if value is None or value == "" else value


@dataclass(frozen=True, slots=True)
class _Reader:
    """How labels of one schema version are read."""

    schema: LabelSchema
    fields: tuple[tuple[Asked, Field], ...]
    decides: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """What one label says: its answers, and the number of its verdict."""

    reader: _Reader
    given: Given
    answers: tuple[tuple[Asked, Hashable], ...]
    verdict: int


class _Readers:
    """Reads labels by their schema version. Most labels say what many others say, so what was read is kept for those."""

    def __init__(self, endpoint: str, schemas: Schemas | None) -> None:
        self._endpoint = endpoint
        self._schemas = schemas
        self._readers: dict[int, _Reader | None] = {}
        self._kept: dict[Hashable, _Read] = {}
        self._verdicts: dict[Hashable, int] = {}
        self._asked: dict[tuple[Asked, ...], int] = {}
        self.verdict_fields: dict[int, int] = {}

    def read(
        self, version: int, rating: Rating | None, preferred: str | None, tags: str | None, values: str | None
    ) -> _Read | None:
        """A label by its parts, ``tags`` and ``values`` as JSON; ``None`` for a version that nobody knows."""
        key = (version, rating, preferred, tags, values)
        read = self._kept.get(key)
        if read is None:
            if version not in self._readers:
                self._readers[version] = _reader(schema_at(self._schemas, self._endpoint, version))
            reader = self._readers[version]
            if reader is None:
                return None
            given = Given(rating, json.loads(tags or "[]"), preferred, json.loads(values or "{}"))
            said = ((asked, answer_in(given, each)) for asked, each in reader.fields)
            answers = tuple((asked, answer) for asked, answer in said if answer is not None)
            read = _Read(reader, given, answers, self._verdict(reader, dict(answers)))
            if len(self._kept) < _MOST_KEPT:
                self._kept[key] = read
        return read

    def is_right(self, read: _Read, gold: Mapping[str, Any]) -> bool | None:
        """Whether a label says what the gold case's answer says: in the fields that decide, or, where the answer has none of
        them, in all that can be compared. ``None`` where there is nothing to compare.
        """
        there = [each for _, each in read.reader.fields if each.name in gold]
        asked = [each for each in there if each.decides] or there
        if not asked:
            return None
        return all(answer_in(read.given, each) == comparable(each, gold[each.name]) for each in asked)

    def _verdict(self, reader: _Reader, answers: Mapping[Asked, Hashable]) -> int:
        said = tuple(answers.get(asked) for asked in reader.decides)
        if all(answer is None for answer in said):
            return NO_VERDICT
        verdict = self._verdicts.setdefault((reader.decides, said), len(self._verdicts))
        self.verdict_fields[verdict] = self._asked.setdefault(reader.decides, len(self._asked))
        return verdict


def _reader(schema: LabelSchema | None) -> _Reader | None:
    if schema is None:
        return None
    fields = tuple(
        (Asked(each.name, each.type, each.scale), each) for each in schema.fields if each.type in COMPARABLE
    )
    return _Reader(schema, fields, tuple(asked for asked, each in fields if each.decides))


def _new_column(table: LabelTable, asked: Asked, reader: _Reader) -> Column:
    each = dict(reader.fields)[asked]
    start = _start(each)
    column = Column(asked, each.decides, list(start), {answer: at for at, answer in enumerate(start)})
    table.columns[asked] = column
    return column


def _start(asked: Field) -> tuple[Hashable, ...]:
    if asked.scale is not None:
        return tuple(range(1, asked.scale + 1))
    if asked.type is FieldType.RATING:
        return tuple(map(str, Rating))
    return asked.options if asked.type is FieldType.CHOICE else ()


def _cases(database: Database, endpoint: str) -> Sequence[int]:
    """The ids of all cases, which are the pages of what is read: asked for by the label's id in pages, SQLite would sort all
    labels for each."""
    with database.session(read_only=True) as session:
        return sorted(session.scalars(select(CaseRow.id).where(CaseRow.endpoint == endpoint)))


def _labels_of(cases: Sequence[int]) -> Select[Any]:
    # Of the table, not the class: 300,000 rows cost half as much when they are not looked at as objects.
    label = LabelRow.__table__.c
    return (
        select(
            label.id,
            label.case_id,
            label.annotator,
            label.is_adjudication,
            label.duration_s,
            label.schema_version,
            label.rating,
            label.preferred,
            cast(label.tags, Text),
            cast(label["values"], Text),
        )
        .where(label.case_id.in_(cases))
        .order_by(label.id)
    )


def _decisions_of(cases: Sequence[int], newest: int) -> Select[Any]:
    decision = DecisionRow.__table__.c
    return (
        select(decision.case_id, decision.label_id, decision.labels)
        .where(decision.case_id.in_(cases), decision.id <= newest)
        .order_by(decision.id)
    )


def _gold(database: Database, endpoint: str) -> dict[int, Mapping[str, Any]]:
    query = select(CaseRow.id, CaseRow.gold).where(
        CaseRow.endpoint == endpoint, or_(CaseRow.state == CaseState.GOLD, CaseRow.gold.is_not(None))
    )
    with database.session(read_only=True) as session:
        return {case: gold or {} for case, gold in session.execute(query)}


def _skips(database: Database, endpoint: str) -> dict[str, int]:
    query = (
        select(ClaimRow.annotator, func.count())
        .join(CaseRow, CaseRow.id == ClaimRow.case_id)
        .where(CaseRow.endpoint == endpoint, ClaimRow.state == ClaimState.SKIPPED)
        .group_by(ClaimRow.annotator)
    )
    with database.session(read_only=True) as session:
        return {row[0]: row[1] for row in session.execute(query)}
