"""Twenty annotator processes over HTTP, killed at random: no label is lost, and none is given twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from relabel.case import CaseState, Resolution
from relabel.models import CaseRow, ClaimRow, ClaimState, DecisionRow, HistoryRow, LabelRow
from servelens.database import Database
from tests.new_database import write_new_database
from tests.postgresql import MISSING, postgresql_binaries, postgresql_server
from tests.relabel_cases import add_cases, flagged

CASES, LABELS, ANNOTATORS, KILLS = 2_000, 3, 20, 30
HERE = Path(__file__).parent


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        write_new_database(tmp_path / "servelens.db")
        yield f"sqlite:///{tmp_path / 'servelens.db'}"
        return
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip(MISSING)
    with ExitStack() as stack:
        yield stack.enter_context(stack.enter_context(postgresql_server(binaries)).migrated_database_url())


@contextmanager
def _console(url: str) -> Iterator[int]:
    """The port of a process that serves the queue's API."""
    command = [sys.executable, str(HERE / "queue_process.py"), url, str(LABELS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(30)


def test_twenty_annotators_who_are_killed_at_random_lose_nothing(url: str) -> None:
    database = Database(url)
    try:
        records = [flagged(number, priority=number % 5) for number in range(CASES)]
        for first in range(0, CASES, 500):
            add_cases(database, records[first : first + 500])
        with _console(url) as port:
            fleet = [sys.executable, "-S", "-E", str(HERE / "annotators.py")]
            arguments = [str(each) for each in (port, ANNOTATORS, 11, KILLS)]
            run = subprocess.run(
                [*fleet, *arguments], capture_output=True, text=True, timeout=280, check=False
            )
        assert run.returncode == 0, run.stderr
        assert int(run.stdout) == KILLS
        _check(database)
    finally:
        database.dispose()


def _check(database: Database) -> None:
    with database.session(read_only=True) as session:
        cases = session.execute(
            select(
                CaseRow.id, CaseRow.state, CaseRow.wanted, CaseRow.taken, CaseRow.labeled, CaseRow.resolution
            )
        ).all()
        labels = session.execute(
            select(LabelRow.id, LabelRow.case_id, LabelRow.annotator, LabelRow.comment)
        ).all()
        claims = session.execute(select(ClaimRow.case_id, ClaimRow.annotator, ClaimRow.state)).all()
        decisions = session.execute(
            select(DecisionRow.case_id, DecisionRow.label_id, DecisionRow.labels, DecisionRow.resolution)
        ).all()
        history = session.execute(
            select(
                HistoryRow.case_id,
                HistoryRow.from_state,
                HistoryRow.to_state,
                HistoryRow.event,
                HistoryRow.actor,
            ).order_by(HistoryRow.id)
        ).all()
    assert len(cases) == CASES
    assert {case[1:5] for case in cases} == {(CaseState.LABELED, LABELS, LABELS, LABELS)}
    assert len(labels) == CASES * LABELS
    people = defaultdict(set)
    for label in labels:
        people[label.case_id].add(label.annotator)
        assert label.comment == label.annotator
    assert {len(of_case) for of_case in people.values()} == {LABELS}
    assert Counter((claim.case_id, claim.annotator) for claim in claims) == Counter(
        (label.case_id, label.annotator) for label in labels
    )
    assert {claim.state for claim in claims} == {ClaimState.LABELED}
    case_of = {label.id: label.case_id for label in labels}
    assert sorted(decision.case_id for decision in decisions) == sorted(case.id for case in cases)
    assert all(case_of[decision.label_id] == decision.case_id for decision in decisions)
    assert {decision.labels for decision in decisions} == {LABELS}
    assert {decision.resolution for decision in decisions} == {Resolution.UNANIMOUS, Resolution.MAJORITY}
    events: dict[int, list[tuple[str | None, str]]] = defaultdict(list)
    last: dict[int, CaseState] = {}
    for entry in history:
        assert entry.from_state == last.get(entry.case_id)
        last[entry.case_id] = entry.to_state
        events[entry.case_id].append((entry.event, entry.actor))
    for case in cases:
        assert last[case.id] is CaseState.LABELED
        expected = Counter({(event, name): 1 for event in ("claimed", "labeled") for name in people[case.id]})
        assert Counter(each for each in events[case.id] if each[1].startswith("annotator")) == expected
