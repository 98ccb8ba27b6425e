from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dashboard import problems
from relabel.agreement.kept import KEPT_S, KeptReports, PeopleAgreements
from relabel.api.agreement import router
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Invalid, Unavailable
from tests.new_database import new_database
from tests.relabel_cases import START
from tests.unit.relabel.agreement.labeled_cases import decide, label, labels, store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


def test_a_report_is_made_anew_after_a_decision_or_a_minute(database: Database) -> None:
    clock = ManualClock(START)
    kept: KeptReports[int] = KeptReports(database, clock)
    made = iter(range(100))
    (case,) = store(database, 1)

    def report() -> int:
        return kept.get("chat", lambda: next(made))

    assert [report(), report()] == [0, 0]
    clock.advance(KEPT_S - 1)
    assert report() == 0
    clock.advance(2)
    assert report() == 1
    decide(database, case, label(database, case, "ann", rating="good"))
    assert [report(), report()] == [2, 2]
    assert kept.get("other", lambda: next(made)) == 3


def test_several_who_ask_at_once_wait_for_one(database: Database) -> None:
    kept: KeptReports[int] = KeptReports(database, ManualClock(START))
    started, go, made = threading.Event(), threading.Event(), []

    def make() -> int:
        made.append(1)
        started.set()
        assert go.wait(10)
        return len(made)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(kept.get, "chat", make)
        assert started.wait(10)
        others = [pool.submit(kept.get, "chat", make) for _ in range(3)]
        go.set()
        assert [first.result(10), *(each.result(10) for each in others)] == [1, 1, 1, 1]


def test_a_report_that_failed_is_not_kept(database: Database) -> None:
    kept: KeptReports[int] = KeptReports(database, ManualClock(START))

    def fail() -> int:
        raise Unavailable("it is down")

    with pytest.raises(Unavailable):
        kept.get("chat", fail)
    assert kept.get("chat", lambda: 7) == 7


def test_the_api_gives_reports_and_hands_options_on(database: Database) -> None:
    cases = store(database, 3)
    labels(database, cases, {"ann": [{"rating": "good"}] * 3, "bob": [{"rating": "bad"}] * 3})
    asked: list[object] = []

    def measure(endpoint: str, evaluator: str, **options: object) -> dict[str, object]:
        asked.append((endpoint, evaluator, options))
        if evaluator == "nonsense":
            raise Invalid("no rule says which scores are suspicious", field="above", fix="Give one.")
        return {"kappa": None}

    app = FastAPI()
    problems.install(app)
    app.include_router(router(PeopleAgreements(database, ManualClock(START)), measure))
    client = TestClient(app)
    found = client.get("/api/relabel/agreement", params={"endpoint": "chat"}).json()
    assert (found["labels"], found["cases_of_several"]) == (6, 3)
    assert found["fields"][0]["measures"]["raw"]["value"] == 0
    assert client.get("/api/relabel/agreement").status_code == 422
    options = {"endpoint": "chat", "evaluator": "toxicity", "positive": "tags=toxic", "above": "0.7"}
    assert client.get("/api/relabel/agreement/evaluators", params=options).json() == {"kappa": None}
    assert asked == [
        (
            "chat",
            "toxicity",
            {"target": "response", "positive": "tags=toxic", "above": 0.7, "below": None, "precision": None},
        )
    ]
    refused = client.get("/api/relabel/agreement/evaluators", params={**options, "evaluator": "nonsense"})
    assert refused.status_code == 422
    assert "suspicious" in refused.text
    without = FastAPI()
    problems.install(without)
    without.include_router(router(PeopleAgreements(database, ManualClock(START))))
    assert TestClient(without).get("/api/relabel/agreement/evaluators", params=options).status_code == 404
