"""Whatever annotators do, in whatever order: what the rows of a case say of it always fits together."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select
from sqlalchemy.orm import Session

from relabel.case import CaseState
from relabel.label import Label, Rating
from relabel.models import CaseRow, ClaimRow, ClaimState, DecisionRow, HistoryRow, LabelRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict
from tests.label_schemas import Versions
from tests.new_database import new_database
from tests.relabel_cases import START, add_cases, flagged

CASES = 3
PEOPLE = st.sampled_from(("ann", "bob", "carl", "dave"))
CASE_IDS = st.integers(1, CASES)


@cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="servelens-queue-")) / "empty.db"
    atexit.register(shutil.rmtree, path.parent)
    database = new_database(path)
    add_cases(database, [flagged(number) for number in range(CASES)])
    database.dispose()
    return path


class Annotating(RuleBasedStateMachine):
    """People do what they may and what they may not; a refusal must change nothing that matters."""

    @initialize(annotators=st.integers(1, 3))
    def begin(self, annotators: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="servelens-queue-"))
        shutil.copy(_template(), self.folder / "queue.db")
        self.database = Database(f"sqlite:///{self.folder / 'queue.db'}")
        self.clock = ManualClock(START)
        self.schemas = Versions(annotators=annotators, gold_every=1)
        self.queue = CaseQueue(self.database, self.clock, lease_s=60, schemas=self.schemas)

    def teardown(self) -> None:
        self.database.dispose()
        shutil.rmtree(self.folder)

    @rule(name=PEOPLE)
    def claim(self, name: str) -> None:
        case = self.queue.claim(name)
        if case is not None:
            assert (case.state, case.annotator, case.labels) == (CaseState.CLAIMED, name, ())
            again = self.queue.claim(name)
            assert again is not None
            assert (again.id, again.version) == (case.id, case.version)

    @rule(name=PEOPLE)
    def claim_dispute(self, name: str) -> None:
        case = self.queue.claim_dispute(name)
        if case is not None:
            assert case.state is CaseState.ADJUDICATING
            assert len(case.labels) == case.labeled > 1
            assert name not in {given.annotator for given in case.labels}

    @rule(name=PEOPLE, case_id=CASE_IDS, rating=st.sampled_from(Rating))
    def label(self, name: str, case_id: int, rating: Rating) -> None:
        with suppress(Conflict):
            once = self.queue.submit(case_id, name, Label(rating))
            assert self.queue.submit(case_id, name, Label(rating)) == once

    @rule(name=PEOPLE, rating=st.sampled_from(Rating))
    def claim_and_label(self, name: str, rating: Rating) -> None:
        case = self.queue.claim(name)
        if case is not None:
            self.queue.submit(case.id, name, Label(rating), version=case.version)

    @rule(name=PEOPLE, case_id=CASE_IDS)
    def skip(self, name: str, case_id: int) -> None:
        with suppress(Conflict):
            self.queue.skip(case_id, name, "no")

    @rule(name=PEOPLE, case_id=CASE_IDS)
    def release(self, name: str, case_id: int) -> None:
        with suppress(Conflict):
            self.queue.release(case_id, name)

    @rule(name=PEOPLE, case_id=CASE_IDS)
    def withdraw(self, name: str, case_id: int) -> None:
        with suppress(Conflict):
            self.queue.withdraw(case_id, name)

    @rule(name=PEOPLE, case_id=CASE_IDS)
    def renew(self, name: str, case_id: int) -> None:
        with suppress(Conflict):
            self.queue.renew(case_id, name)

    @rule(giver=PEOPLE, taker=PEOPLE, case_id=CASE_IDS)
    def reassign(self, giver: str, taker: str, case_id: int) -> None:
        with suppress(Conflict):
            self.queue.reassign(case_id, giver, taker, actor="lead")

    @rule(case_id=CASE_IDS)
    def reopen(self, case_id: int) -> None:
        with suppress(Conflict):
            self.queue.reopen(case_id, "lead", "again")

    @rule(case_id=CASE_IDS, known=st.sampled_from(({"rating": "good"}, None)))
    def gold(self, case_id: int, known: dict[str, str] | None) -> None:
        with suppress(Conflict):
            self.queue.set_gold(case_id, known, actor="lead")

    @rule(seconds=st.sampled_from((10, 70)))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(annotators=st.integers(1, 3))
    def change_schema(self, annotators: int) -> None:
        self.schemas.change(annotators=annotators)

    @invariant()
    def fits_together(self) -> None:
        with self.database.session(read_only=True) as session:
            for row in session.scalars(select(CaseRow)):
                _check(session, row)


def _check(session: Session, row: CaseRow) -> None:
    claims = session.scalars(select(ClaimRow).where(ClaimRow.case_id == row.id)).all()
    labels = session.scalars(select(LabelRow).where(LabelRow.case_id == row.id)).all()
    history = session.scalars(
        select(HistoryRow).where(HistoryRow.case_id == row.id).order_by(HistoryRow.id)
    ).all()
    decisions = session.scalars(
        select(DecisionRow).where(DecisionRow.case_id == row.id).order_by(DecisionRow.id)
    ).all()
    held = [claim for claim in claims if claim.state is ClaimState.HELD]
    assert all((claim.lease_expires_at is not None) == (claim in held) for claim in claims)
    assert {claim.annotator for claim in claims if claim.state is ClaimState.LABELED} == {
        given.annotator for given in labels
    }
    assert [entry.from_state for entry in history] == [None, *(entry.to_state for entry in history[:-1])]
    assert history[-1].to_state is row.state
    newest = decisions[-1] if decisions else None
    assert (newest is not None and newest.label_id is not None) == (row.state is CaseState.LABELED)
    assert row.resolution == (newest.resolution if newest and row.state is CaseState.LABELED else None)
    if row.state is CaseState.GOLD:
        return
    assert all(claim.state is not ClaimState.RELEASED for claim in claims)
    places = [
        claim for claim in claims if not claim.is_adjudication and claim.state is not ClaimState.EXPIRED
    ]
    skipped = sum(claim.state is ClaimState.SKIPPED for claim in places)
    assert row.taken == len(places) <= row.wanted
    assert row.labeled == sum(not given.is_adjudication for given in labels)
    assert row.lease_expires_at == min(
        (claim.lease_expires_at for claim in held if claim.lease_expires_at), default=None
    )
    assert row.started or not claims
    deciding = any(claim.is_adjudication for claim in held)
    is_done = row.taken == row.wanted and row.labeled + skipped == row.taken
    if row.taken < row.wanted:
        assert row.state is CaseState.OPEN
    elif not is_done:
        assert row.state is CaseState.CLAIMED
    else:
        finished = (CaseState.LABELED, CaseState.SKIPPED, CaseState.DISPUTED)
        assert row.state in ((CaseState.ADJUDICATING,) if deciding else finished)


TestAnnotating = Annotating.TestCase
TestAnnotating.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
