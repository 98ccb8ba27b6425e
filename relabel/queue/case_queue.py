"""The queue of cases: who looks at which case, for how long, and what comes of it.

Invariants: a case is given to no more people at once than it wants labels, a person gives a case one label at most, and what
is handed out is answered by who holds it. All rest on the database: the row of a case is locked before its claims are read
(SQLite: one writing transaction at a time; PostgreSQL: FOR UPDATE, with SKIP LOCKED when claiming, so that annotators do
not queue behind each other), and a claim and a label are unique for a case and an annotator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy import inspect
from sqlalchemy.orm import Session, load_only

from relabel.case import Case, CaseState, HistoryEntry, Page, ReasonKind, checked_annotator, checked_reason
from relabel.label import MAX_COMMENT_LENGTH, Label, check_text
from relabel.label_schema import Schemas
from relabel.models import CaseRow, ClaimRow, ClaimState, CommentRow
from relabel.queue import answering, handing
from relabel.queue.answers import read_answers, texts_of
from relabel.queue.case_list import CaseFilter, count_cases, read_page
from relabel.queue.case_reader import read_case, read_history, read_label_of
from relabel.queue.claiming import Busy, next_case, next_dispute, own_claim, wait_for
from relabel.queue.gold import next_gold
from relabel.queue.known_schemas import DefaultSchemas, KnownSchemas, SchemasOfCall
from relabel.queue.leases import free_expired
from relabel.queue.places import (
    check_may_answer,
    claim_of,
    hold,
    locked_case,
    no_case,
    start_lease,
    take_place,
)
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Invalid

_Reading: TypeAlias = Callable[[CaseRow, ClaimRow, SchemasOfCall], Label]
_AGAIN: Final = object()
_MOST_TRIES: Final = 1_000


class CaseQueue:
    """The cases of all endpoints in ``database``. ``lease_s`` is how long a claim lasts, in seconds (``lease``: the
    same); ``schemas`` says what annotators are asked (nothing given: the default schema).

    Every method is one transaction and may be called from any thread. ``annotator`` is the name of a person. A case that
    is returned is as that person may see it: of an unfinished one they see no label but their own, and a gold case looks
    like any other. What all methods may raise: :class:`~servelens.errors.Missing` for an unknown case,
    :class:`~servelens.errors.Unavailable` when the database fails.
    """

    def __init__(
        self, database: Database, clock: Clock, *, lease_s: float = 900.0, schemas: Schemas | None = None
    ) -> None:
        if lease_s <= 0:
            raise Invalid(f"{lease_s:g} is not a time", field="lease_s", fix="Use a number over 0.")
        self._database = database
        self._clock = clock
        self.lease = self._lease = timedelta(seconds=lease_s)
        self._schemas = KnownSchemas(DefaultSchemas() if schemas is None else schemas)
        self._last_claimed: str | None = None

    def claim(self, annotator: str, endpoint: str | None = None) -> Case | None:
        """The annotator's own claimed case, else the first by priority, then age, that wants a label which they may give.

        The lease starts anew. ``None`` when there is nothing to do.
        """
        annotator = checked_annotator(annotator)
        now = self._clock.now()

        def work(session: Session, schemas: SchemasOfCall) -> Any:
            found = own_claim(session, annotator, endpoint)
            if found is not None:
                row, claim = found
                start_lease(session, row, claim, now + self._lease)
            else:
                if free_expired(session, now):
                    return _AGAIN  # committed first, for others may wait for these rows
                following = next_case(session, annotator, endpoint)
                if following is None or isinstance(following, Busy):
                    return following
                row, ran_out = following
                schema = schemas.current(row.endpoint)
                gold = next_gold(session, schema, annotator, row.endpoint)
                if gold is not None:
                    row, ran_out = gold, None
                if row.taken == 0:
                    row.wanted = schema.annotators
                claim = hold(session, row, ran_out, annotator, schema.version, now, self._lease)
            session.flush()
            self._last_claimed = row.endpoint
            return read_case(session, row, annotator, claim)

        return self._until_free(work, endpoint or self._last_claimed)

    def claim_dispute(self, annotator: str, endpoint: str | None = None) -> Case | None:
        """The disputed case that the annotator decides already, else the next one, with all its labels.

        ``None`` when there is none that they may decide: whom the schema names as an adjudicator, else everybody who has
        not had the case. Raises :class:`~servelens.errors.Invalid` when ``endpoint`` has other adjudicators.
        """
        annotator = checked_annotator(annotator)
        now = self._clock.now()

        def work(session: Session, schemas: SchemasOfCall) -> Any:
            found = own_claim(session, annotator, endpoint, is_adjudication=True)
            if found is not None:
                row, claim = found
                start_lease(session, row, claim, now + self._lease)
            else:
                if free_expired(session, now):
                    return _AGAIN
                following = next_dispute(session, schemas, annotator, endpoint)
                if following is None or isinstance(following, Busy):
                    return following
                row, ran_out = following
                asked = schemas.current(row.endpoint).version
                claim = hold(session, row, ran_out, annotator, asked, now, self._lease, is_adjudication=True)
            session.flush()
            return read_case(session, row, annotator, claim)

        return self._until_free(work, endpoint)

    def renew(self, case_id: int, annotator: str) -> Case:
        """Start the lease anew, also after it ran out while nobody else took the place.

        Raises :class:`~servelens.errors.Conflict` when the place is not the annotator's.
        """
        now = self._clock.now()

        def work(session: Session, row: CaseRow, claim: ClaimRow | None, name: str, _: object) -> None:
            check_may_answer(row, claim, name)
            assert claim is not None, "who has no claim may not answer"
            if claim.state is ClaimState.EXPIRED:
                take_place(session, row, claim, now, "renewed", "renewed after the lease ran out")
            start_lease(session, row, claim, now + self._lease)

        return self._act(case_id, annotator, work)

    def submit(self, case_id: int, annotator: str, label: Label, *, version: int | None = None) -> Case:
        """Give the case a label.

        The same label from the same annotator again changes nothing. ``version``: that of the case which the annotator
        claimed. Raises :class:`~servelens.errors.Conflict` when they hold no place, the place is somebody else's by now,
        they have answered already, or the claim has another version.
        """
        return self._label(case_id, annotator, lambda *_: label, version)

    def answer(
        self,
        case_id: int,
        annotator: str,
        values: Mapping[str, Any],
        comment: str | None = None,
        *,
        version: int | None = None,
        short: Mapping[str, Any] | None = None,
    ) -> Case:
        """Give the case the label that ``values`` (by the field's name) are under the schema that the annotator was shown;
        ``short`` holds answers by :data:`~relabel.queue.answers.SHORT`.

        Raises :class:`~servelens.errors.Invalid`, naming the field, for what that schema does not allow; else as
        :meth:`submit`.
        """

        def read(row: CaseRow, claim: ClaimRow, schemas: SchemasOfCall) -> Label:
            schema = schemas.version(row.endpoint, claim.schema_version)
            return read_answers(schema, values, comment, texts=texts_of(row), short=short)

        return self._label(case_id, annotator, read, version)

    def skip(self, case_id: int, annotator: str, reason: str, *, version: int | None = None) -> Case:
        """Use the annotator's place up without a label; the same skip again changes nothing. An adjudicator's skip ends the
        case. Raises as :meth:`submit`.
        """
        reason = checked_reason(reason)
        now = self._clock.now()

        def work(
            session: Session, row: CaseRow, claim: ClaimRow | None, name: str, schemas: SchemasOfCall
        ) -> None:
            is_repeated = (
                claim is not None and claim.state is ClaimState.SKIPPED and claim.skip_reason == reason
            )
            if not is_repeated:
                held = answering.check_held(row, claim, name, version)
                answering.give_skip(session, schemas, row, held, reason, now)

        return self._act(case_id, annotator, work)

    def release(self, case_id: int, annotator: str) -> Case:
        """Give the place back for others; nothing happens when the case is open and the annotator has none.

        Raises :class:`~servelens.errors.Conflict` when somebody else has the case or it is finished.
        """
        now = self._clock.now()

        def work(session: Session, row: CaseRow, claim: ClaimRow | None, name: str, _: object) -> None:
            handing.release(session, row, claim, name, now)

        return self._act(case_id, annotator, work)

    def reassign(self, case_id: int, from_annotator: str, to_annotator: str, *, actor: str) -> Case:
        """Give a place that is held to somebody else, who has not had the case; the lease starts anew.

        Raises :class:`~servelens.errors.Conflict` when it is not held, or the other may not have it.
        """
        giver, taker = _named(from_annotator, "from_annotator"), _named(to_annotator, "to_annotator")
        actor = checked_annotator(actor)
        now = self._clock.now()

        def work(session: Session, schemas: SchemasOfCall) -> Case:
            row = locked_case(session, case_id)
            handing.reassign(session, schemas, row, giver, taker, actor, now, self._lease)
            session.flush()
            return read_case(session, row)

        return self._schemas.run(self._database, work)

    def comment(self, case_id: int, author: str, text: str) -> Case:
        """Add a remark that everybody sees."""
        check_text(text, "text", MAX_COMMENT_LENGTH)
        if not text.strip():
            raise Invalid("it is blank", field="text", fix="Write something.")
        now = self._clock.now()

        def work(session: Session, row: CaseRow, _claim: object, name: str, _: object) -> None:
            session.add(CommentRow(case_id=row.id, author=name, text=text.strip(), created_at=now))

        return self._act(case_id, author, work)

    def withdraw(self, case_id: int, annotator: str) -> Case:
        """Take the annotator's own label or skip back; they hold the case again. What they said stays in the history.

        Raises :class:`~servelens.errors.Conflict` when they have not answered, and when the case is being decided by an
        adjudicator or has been.
        """
        now = self._clock.now()

        def work(session: Session, row: CaseRow, claim: ClaimRow | None, name: str, _: object) -> None:
            answering.withdraw(session, row, claim, name, now, self._lease)

        return self._act(case_id, annotator, work)

    def reopen(self, case_id: int, actor: str, reason: str) -> Case:
        """Take all labels of a labeled, skipped or disputed case into its history; it is open again, for everybody.

        Raises :class:`~servelens.errors.Conflict` for one that is open or claimed.
        """
        actor, reason = checked_annotator(actor), checked_reason(reason)
        now = self._clock.now()

        def work(session: Session, _: SchemasOfCall) -> Case:
            row = locked_case(session, case_id)
            handing.reopen(session, row, actor, reason, now)
            session.flush()
            return read_case(session, row)

        return self._schemas.run(self._database, work)

    def set_gold(self, case_id: int, values: Mapping[str, Any] | None, *, actor: str) -> Case:
        """Make the case gold, with the known answer ``values`` by the field's name, or (``None``) one like any other.

        Raises :class:`~servelens.errors.Invalid` for what the schema does not allow, and
        :class:`~servelens.errors.Conflict` while somebody works on the case.
        """
        actor = checked_annotator(actor)
        now = self._clock.now()

        def work(session: Session, schemas: SchemasOfCall) -> Case:
            row = locked_case(session, case_id)
            if values is None:
                handing.unmake_gold(session, row, actor, now)
            else:
                handing.make_gold(session, schemas.current(row.endpoint), row, values, actor, now)
            session.flush()
            return read_case(session, row)

        return self._schemas.run(self._database, work)

    def get(self, case_id: int, annotator: str | None = None) -> Case:
        """The case, whoever holds it, as ``annotator`` may see it; nobody named: as who oversees the queue sees it, which
        is without the labels of an unfinished case, but with its true state.
        """
        reader = None if annotator is None else checked_annotator(annotator)
        with self._database.session(read_only=True) as session:
            row = session.get(CaseRow, case_id)
            if row is None:
                raise no_case(case_id)
            claim = None if reader is None else claim_of(session, case_id, reader)
            case = read_case(session, row, reader, claim)
        if claim is not None:
            return case
        return replace(case, schema_version=self._schemas.current(case.endpoint).version)

    def history(self, case_id: int, annotator: str | None = None) -> tuple[HistoryEntry, ...]:
        """All that happened to the case, the oldest first, as ``annotator`` may see it: of an unfinished case without what
        others said. Nobody named: everything.
        """
        reader = None if annotator is None else checked_annotator(annotator)
        with self._database.session(read_only=True) as session:
            row = session.get(CaseRow, case_id, options=[load_only(CaseRow.state)])
            if row is None:
                raise no_case(case_id)
            claim = None if reader is None else claim_of(session, case_id, reader)
            return read_history(session, row, reader, claim)

    def list(
        self,
        *,
        state: CaseState | None = None,
        endpoint: str | None = None,
        annotator: str | None = None,
        evaluator: str | None = None,
        rule: str | None = None,
        kind: ReasonKind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Cases in the order in which they are claimed that a :class:`~relabel.queue.case_list.CaseFilter` lets through.
        ``limit`` is 1 to 500; ``cursor`` is :attr:`~relabel.case.Page.next_cursor` of the page before. Raises
        :class:`~servelens.errors.Invalid` for another limit or a cursor that is none.
        """
        wanted = CaseFilter(state, endpoint, annotator, evaluator, rule, kind, since, until)
        with self._database.session(read_only=True) as session:
            return read_page(session, wanted, limit=limit, cursor=cursor)

    def counts(self, endpoint: str | None = None) -> Mapping[str, Mapping[CaseState, int]]:
        """Cases per endpoint and every state; an expired lease counts as claimed until somebody claims."""
        with self._database.session(read_only=True) as session:
            return count_cases(session, endpoint)

    def _until_free(self, work: Callable[[Session, SchemasOfCall], Any], endpoint: str | None) -> Case | None:
        """Claim again when leases have been freed or others were at all the cases there are."""
        for _ in range(_MOST_TRIES):
            found = self._schemas.run(self._database, work, current=endpoint)
            if isinstance(found, Busy):
                with self._database.session() as session:
                    wait_for(session, found)
            elif found is not _AGAIN:
                assert found is None or isinstance(found, Case)
                return found
        raise Conflict("others were quicker at every case", fix="Claim again.")

    def _label(self, case_id: int, annotator: str, read: _Reading, version: int | None) -> Case:
        now = self._clock.now()

        def work(
            session: Session, row: CaseRow, claim: ClaimRow | None, name: str, schemas: SchemasOfCall
        ) -> None:
            if (
                claim is not None
                and claim.state is ClaimState.LABELED
                and read_label_of(session, claim) == read(row, claim, schemas)
            ):
                return
            held = answering.check_held(row, claim, name, version)
            answering.give_label(session, schemas, row, held, read(row, held, schemas), now)

        return self._act(case_id, annotator, work)

    def _act(
        self,
        case_id: int,
        annotator: str,
        work: Callable[[Session, CaseRow, ClaimRow | None, str, SchemasOfCall], None],
    ) -> Case:
        """Do something with a case, which is locked, and read it as the annotator may see it then."""
        name = checked_annotator(annotator)

        def locked(session: Session, schemas: SchemasOfCall) -> Case:
            row = locked_case(session, case_id)
            claim = claim_of(session, case_id, name)
            work(session, row, claim, name, schemas)
            session.flush()
            is_gone = claim is None or inspect(claim).was_deleted
            return read_case(session, row, name, None if is_gone else claim)

        return self._schemas.run(self._database, locked)


def _named(name: str, field: str) -> str:
    try:
        return checked_annotator(name)
    except Invalid as error:
        raise Invalid(error.message, field=field, fix=error.fix) from error
