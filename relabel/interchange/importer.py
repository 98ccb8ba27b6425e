"""Takes the annotations of another tool in as labels.

Invariants: an annotation is taken whole or not at all, and what is wrong with one stops no other; the same annotation again
changes nothing, because :class:`~relabel.models.ImportRow` remembers its id and what it said. A label never changes once it
is given, so an annotation that has changed since is reported and left: who wants it reopens the case and imports again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from relabel.case import checked_annotator
from relabel.conversation import storable
from relabel.interchange.task_case import texts_of
from relabel.interchange.tool import Annotation, Said, Tool
from relabel.label import Label, check_text
from relabel.label_schema import LabelSchema, Schemas
from relabel.models import CaseRow, ImportRow, OccurrenceRow
from relabel.queue.imported import NotTaken, take_label
from relabel.queue.known_schemas import KnownSchemas, SchemasOfCall
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Invalid, Missing

MAX_PROBLEMS: Final = 100
_LARGEST_ID: Final = 2**63 - 1
_LONGEST_NAME: Final = 255
_LONGEST_MESSAGE: Final = 1_000
_AT_ONCE: Final = 1_000


class Outcome(StrEnum):
    """What became of an annotation.

    ``unchanged``: it was taken before. ``skipped`` and ``draft``: the annotator gave no answer. The others are problems:
    ``changed`` since it was taken, ``unknown_case``, ``finished`` meanwhile, ``already_labeled`` by the same person,
    ``no_place`` because others hold them all, ``refused`` by the label schema, ``unreadable``.
    """

    TAKEN = "taken"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    DRAFT = "draft"
    CHANGED = "changed"
    UNKNOWN_CASE = "unknown_case"
    FINISHED = "finished"
    ALREADY_LABELED = "already_labeled"
    NO_PLACE = "no_place"
    REFUSED = "refused"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An annotation that was not taken. ``element`` is its place in the file, from 0; ``message`` says what to do."""

    element: int
    outcome: Outcome
    message: str
    external_id: str | None = None
    case_id: int | None = None
    annotator: str | None = None

    def __post_init__(self) -> None:
        """What the file says need be neither short nor valid Unicode, and the report goes out as JSON."""
        object.__setattr__(self, "message", storable(self.message[:_LONGEST_MESSAGE]))
        if self.external_id is not None:
            object.__setattr__(self, "external_id", storable(self.external_id[:_LONGEST_NAME]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """Annotations by what became of them, and the first :data:`MAX_PROBLEMS` problems."""

    dry_run: bool
    outcomes: Mapping[Outcome, int]
    problems: tuple[Problem, ...]
    more_problems: int


class Importer:
    """Imports what ``tool`` exported into ``database``.

    ``endpoint``: annotations of cases of another are refused. ``annotators`` are the names here of the tool's users (an
    e-mail address, a number, a UUID); without one an e-mail address is a name, and another user is called after the tool,
    as in ``label_studio:3``. Raises :class:`~servelens.errors.Invalid` for a name that is none.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        schemas: Schemas,
        tool: Tool,
        *,
        endpoint: str | None = None,
        annotators: Mapping[str, str] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._known = KnownSchemas(schemas)
        self._tool = tool
        self._endpoint = endpoint
        self._annotators = {user: checked_annotator(name) for user, name in (annotators or {}).items()}

    def run(self, elements: Iterable[Mapping[str, Any]], *, dry_run: bool = False) -> ImportReport:
        """Import the elements of the exported array, in their order.

        One transaction for the annotations of one case that follow each other, up to a thousand. ``dry_run`` changes
        nothing; it does not see that two tasks far apart in the file are about the same case. Raises
        :class:`~servelens.errors.Invalid` when not even the first element can be read, and
        :class:`~servelens.errors.Unavailable` when the database fails; what was taken until then stays taken, and importing
        the same file again goes on from there.
        """
        counted: Counter[Outcome] = Counter()
        problems: list[Problem] = []

        def note(problem: Problem) -> None:
            counted[problem.outcome] += 1
            if len(problems) < MAX_PROBLEMS:
                problems.append(problem)

        found = _annotations(self._tool, _until_broken(elements, note), note)
        for _, group in itertools.groupby(found, key=lambda each: _case_key(each[1])):
            while some := list(itertools.islice(group, _AT_ONCE)):
                for result in self._case(some, dry_run):
                    if isinstance(result, Problem):
                        note(result)
                    else:
                        counted[result] += 1
        failed = sum(count for outcome, count in counted.items() if outcome not in _FINE)
        return ImportReport(
            dry_run=dry_run,
            outcomes={outcome: counted[outcome] for outcome in Outcome if counted[outcome]},
            problems=tuple(sorted(problems, key=lambda each: each.element)),
            more_problems=failed - len(problems),
        )

    def _case(self, annotations: list[tuple[int, Annotation]], dry_run: bool) -> list[Outcome | Problem]:
        """Annotations of one case."""

        def work(session: Session, schemas: SchemasOfCall) -> list[Outcome | Problem]:
            results = [self._try(session, schemas, element, each) for element, each in annotations]
            if dry_run:
                raise _Undo(results)
            return results

        try:
            return self._known.run(self._database, work)
        except _Undo as undone:
            return undone.results

    def _try(
        self, session: Session, schemas: SchemasOfCall, element: int, annotation: Annotation
    ) -> Outcome | Problem:
        annotator: str | None = None
        try:
            annotator = self._annotator(annotation.user)
            for name in ("external_id", "databricks_request_id", "endpoint"):
                check_text(getattr(annotation, name) or "", name, _LONGEST_NAME)
            with session.begin_nested():
                return self._take(session, schemas, annotation, annotator)
        except _NotTaken as refusal:
            outcome, message = refusal.outcome, str(refusal)
        except NotTaken as refusal:
            outcome, message = Outcome(refusal.reason), str(refusal)
        except Invalid as refusal:
            outcome, message = Outcome.REFUSED, str(refusal)
        return Problem(
            element=element,
            outcome=outcome,
            message=message,
            external_id=annotation.external_id,
            case_id=annotation.case_id,
            annotator=annotator,
        )

    def _take(
        self, session: Session, schemas: SchemasOfCall, annotation: Annotation, annotator: str
    ) -> Outcome:
        row = self._locked_case(session, annotation)
        known = session.get(ImportRow, (self._tool.name, annotation.external_id))
        if annotation.said is not Said.ANSWERED:
            if known is not None:
                raise _changed("it has been taken back in the tool")
            return Outcome.SKIPPED if annotation.said is Said.SKIPPED else Outcome.DRAFT
        schema = _schema(schemas, row.endpoint, annotation.schema_version)
        texts = texts_of(row)
        answers = self._tool.answers(annotation, schema, texts)
        label = schema.read(answers.values, answers.comment, texts=texts)
        digest = _digest(row.id, annotator, schema, label)
        if known is not None:
            if known.digest == digest:
                return Outcome.UNCHANGED
            raise _changed("it says something else than when it was taken, or is another person's")
        now = self._clock.now()
        given = take_label(
            session,
            schemas,
            row,
            annotator,
            label,
            schema.version,
            self._tool.name,
            now,
            duration_s=annotation.duration_s,
        )
        session.add(
            ImportRow(
                tool=self._tool.name,
                external_id=annotation.external_id,
                digest=digest,
                label_id=given.id,
                imported_at=now,
            )
        )
        session.flush()
        return Outcome.TAKEN

    def _annotator(self, user: str) -> str:
        mapped = self._annotators.get(user)
        if mapped is not None:
            return mapped
        return checked_annotator(user if "@" in user else f"{self._tool.name}:{user}")

    def _locked_case(self, session: Session, annotation: Annotation) -> CaseRow:
        """The case that the task names, by its id or by the record; both must mean the same one."""
        row: CaseRow | None = None
        if annotation.case_id is not None and 0 < annotation.case_id <= _LARGEST_ID:
            row = session.scalar(_lock(annotation.case_id))
        if annotation.databricks_request_id is not None:
            row = self._of_record(session, annotation, row)
        if row is None:
            raise _NotTaken(
                Outcome.UNKNOWN_CASE,
                "there is no such case",
                fix="Import only tasks that were made here; a case leaves with its record when that is to be forgotten.",
            )
        wanted = self._endpoint or annotation.endpoint
        if wanted is not None and row.endpoint != wanted:
            raise _NotTaken(
                Outcome.UNKNOWN_CASE,
                f"case {row.id} is one of {row.endpoint!r}, not of {wanted!r}",
                fix="Name its endpoint, or none.",
            )
        return row

    def _of_record(self, session: Session, annotation: Annotation, by_id: CaseRow | None) -> CaseRow | None:
        record = select(OccurrenceRow.case_id).where(
            OccurrenceRow.databricks_request_id == annotation.databricks_request_id
        )
        endpoint = self._endpoint or annotation.endpoint
        if endpoint is not None:
            record = record.where(OccurrenceRow.endpoint == endpoint)
        if by_id is not None:
            # Another installation has cases of the same numbers.
            same = session.scalar(record.where(OccurrenceRow.case_id == by_id.id))
            return None if same is None else by_id
        cases = set(session.scalars(record.limit(2)))
        return session.scalar(_lock(cases.pop())) if len(cases) == 1 else None


_FINE: Final = frozenset({Outcome.TAKEN, Outcome.UNCHANGED, Outcome.SKIPPED, Outcome.DRAFT})


class _Undo(Exception):
    """Rolls the transaction of a dry run back."""

    def __init__(self, results: list[Outcome | Problem]) -> None:
        self.results = results
        super().__init__()


class _NotTaken(Exception):
    def __init__(self, outcome: Outcome, message: str, *, fix: str) -> None:
        self.outcome = outcome
        super().__init__(f"{message}. {fix}")


def _changed(what: str) -> _NotTaken:
    return _NotTaken(
        Outcome.CHANGED,
        what,
        fix="Reopen the case and import again if this is to count; a label never changes.",
    )


def _schema(schemas: SchemasOfCall, endpoint: str, version: int | None) -> LabelSchema:
    if version is None:
        return schemas.current(endpoint)
    try:
        return schemas.version(endpoint, version)
    except Missing as error:
        raise Invalid(
            f"the task was made with version {version} of the label schema, which {endpoint!r} has not"[:300],
            field="schema_version",
            fix="Import it where the task was made.",
        ) from error


def _lock(case_id: int) -> Select[CaseRow]:
    return select(CaseRow).where(CaseRow.id == case_id).with_for_update()


def _case_key(annotation: Annotation) -> tuple[int | None, str | None]:
    return annotation.case_id, annotation.databricks_request_id


def _annotations(
    tool: Tool, elements: Iterable[Mapping[str, Any]], note: Callable[[Problem], None]
) -> Iterator[tuple[int, Annotation]]:
    """All annotations with the place of their element; what cannot be read is noted and passed over."""
    for index, element in enumerate(elements):
        try:
            for annotation in tool.annotations(element):
                if isinstance(annotation, Invalid):
                    note(Problem(element=index, outcome=Outcome.UNREADABLE, message=str(annotation)))
                else:
                    yield index, annotation
        except Invalid as error:
            note(Problem(element=index, outcome=Outcome.UNREADABLE, message=str(error)))


def _until_broken(
    elements: Iterable[Mapping[str, Any]], note: Callable[[Problem], None]
) -> Iterator[Mapping[str, Any]]:
    """The elements up to one that is no JSON, which is noted: those before it have been taken by then."""
    count = 0
    try:
        for element in elements:
            yield element
            count += 1
    except Invalid as error:
        if not count:
            raise
        note(Problem(element=count, outcome=Outcome.UNREADABLE, message=str(error)))


def _digest(case_id: int, annotator: str, schema: LabelSchema, label: Label) -> str:
    """SHA-256 (hex) of who says what about which case, whichever of its formats the tool exported."""
    said = [case_id, annotator, schema.version, schema.answers(label), label.comment]
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
