"""The relabeling queue with 100,000 open cases: ``python -m benchmarks.relabel_queue [--postgresql]``.

The queue is filled by bulk inserts with cases of about 1 kB of text in ten priorities. Then 20 threads annotate over
:class:`~relabel.queue.case_queue.CaseQueue`, each claiming and submitting in turn with a pause of random length between
(exponential, 0.5 s on average, so that 20 people are as fast as 200 who take 5 s a case), and after that without any pause.
This is done three times: with one label a case, with three labels a case, and with three where one annotator has labeled
10,000 cases that nobody else has. On SQLite one transaction writes at a time, so without pauses every call waits for the
19 others; that figure is given apart (``full_load``). Then the lists and counts that the page asks for are timed, and the
export of 100,000 labeled cases. The last line is a JSON object; ``claim_p99_ms`` and ``submit_p99_ms`` are the worst of the
three runs with pauses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import delete, insert, text, update

from relabel.case import CaseState
from relabel.export.export import Export
from relabel.export.query import ExportQuery
from relabel.label import Label, Rating
from relabel.label_schema import LabelSchema, default_schema
from relabel.models import (
    CaseRow,
    ClaimRow,
    ClaimState,
    DecisionRow,
    HistoryRow,
    LabelRow,
    OccurrenceRow,
    ReasonRow,
)
from relabel.queue.case_queue import CaseQueue
from servelens.clock import SystemClock
from servelens.database import Database

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_THREADS: Final = 20
_CHUNK: Final = 5_000
_AHEAD: Final = "annotator 0"
_PROMPT: Final = "Explain to a new colleague how the weekly report is made. " * 5
_ANSWER: Final = "First the numbers are read from the table, and then they are checked by hand. " * 8


class _Asked:
    """Every endpoint asks for the default schema and so many labels."""

    def __init__(self, annotators: int) -> None:
        self._schema = replace(default_schema(), annotators=annotators)

    def current(self, endpoint: str) -> LabelSchema:
        return self._schema

    def version(self, endpoint: str, version: int) -> LabelSchema:
        return self._schema


def main() -> int:
    parser = argparse.ArgumentParser(description="latency of the relabeling queue")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run with pauses")
    parser.add_argument("--think-s", type=float, default=0.5)
    parser.add_argument("--ahead", type=int, default=10_000)
    parser.add_argument("--postgresql", action="store_true")
    arguments = parser.parse_args()
    with _database(arguments.postgresql) as database:
        results = _measured(database, arguments)
    print(json.dumps(results))
    return 0


@contextlib.contextmanager
def _database(postgresql: bool) -> Iterator[Database]:
    with contextlib.ExitStack() as stack:
        if postgresql:
            from tests.postgresql import MISSING, postgresql_binaries, postgresql_server

            binaries = postgresql_binaries()
            if binaries is None:
                raise SystemExit(MISSING)
            url = stack.enter_context(stack.enter_context(postgresql_server(binaries)).database_url())
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = f"sqlite:///{Path(folder) / 'queue.db'}"
        database = Database(url)
        stack.callback(database.dispose)
        database.create_tables()
        yield database


def _measured(database: Database, arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    fill(database, arguments.cases)
    print(f"{arguments.cases:,} cases on {database.engine.dialect.name}: {time.monotonic() - began:.1f} s")
    results: dict[str, Any] = {"database": database.engine.dialect.name, "open_cases": arguments.cases}
    paced: list[Mapping[str, float]] = []
    for name, annotators, ahead in (
        ("one label", 1, 0),
        ("three labels", 3, 0),
        ("one ahead", 3, arguments.ahead),
    ):
        clear(database)
        if ahead:
            run_ahead(database, ahead, annotators)
        vacuum(database)
        queue = CaseQueue(database, SystemClock(), schemas=_Asked(annotators))
        for load, think_s in (("paced", arguments.think_s), ("full_load", 0.0)):
            seconds = arguments.seconds if think_s else min(arguments.seconds, 5.0)
            found = annotate(queue, seconds, think_s)
            print(f"{name}, {load}: {json.dumps(found)}")
            results[f"{name} {load}".replace(" ", "_")] = found
            paced += [found] if think_s else []
    for call in ("claim", "submit"):
        results[f"{call}_p99_ms"] = max(found[f"{call}_p99_ms"] for found in paced)
    results["reads_ms"] = reads(queue)
    print(f"reads: {json.dumps(results['reads_ms'])}")
    results["list_ms"] = max(took for name, took in results["reads_ms"].items() if name.startswith("list"))
    results["counts_ms"] = results["reads_ms"]["counts"]
    clear(database)
    run_ahead(database, arguments.cases, 1)
    vacuum(database)
    began = time.monotonic()
    export = Export(database, ExportQuery())
    size = sum(len(each.line) for chunk in export for examples in chunk.values() for each in examples)
    results["export_s"] = round(time.monotonic() - began, 2)
    print(f"export: {export.summary.written:,} examples, {size / 1e6:.0f} MB in {results['export_s']} s")
    return results


def fill(database: Database, cases: int) -> None:
    """Open cases 1, 2, …, each with a reason, an occurrence and its history."""
    draw = random.Random(7)
    for first in range(1, cases + 1, _CHUNK):
        numbers = range(first, min(first + _CHUNK, cases + 1))
        with database.session() as session:
            session.execute(insert(CaseRow), [_case(number, draw) for number in numbers])
            session.execute(insert(ReasonRow), [_reason(number, draw) for number in numbers])
            session.execute(insert(OccurrenceRow), [_occurrence(number) for number in numbers])
            session.execute(insert(HistoryRow), [_selected(number) for number in numbers])
    if database.engine.dialect.name == "postgresql":
        with database.session() as session:
            session.execute(text("SELECT setval('relabel_cases_id_seq', :last)").bindparams(last=cases))


def clear(database: Database) -> None:
    """Make all cases open again."""
    with database.session() as session:
        for row in (DecisionRow, LabelRow, ClaimRow):
            session.execute(delete(row))
        session.execute(
            update(CaseRow)
            .where(CaseRow.started)
            .values(
                state=CaseState.OPEN,
                started=False,
                taken=0,
                labeled=0,
                wanted=1,
                annotator=None,
                lease_expires_at=None,
                resolution=None,
            )
        )


def run_ahead(database: Database, labels: int, wanted: int) -> None:
    """One annotator has labeled the first ``labels`` cases in the order of claims."""
    done = labels if wanted == 1 else 0
    with database.session() as session:
        ids = session.scalars(
            CaseRow.__table__.select()
            .with_only_columns(CaseRow.id)
            .order_by(CaseRow.priority.desc(), CaseRow.id)
            .limit(labels)
        ).all()
        for first in range(0, len(ids), _CHUNK):
            chunk = ids[first : first + _CHUNK]
            session.execute(insert(ClaimRow), [_claim(case_id) for case_id in chunk])
            session.execute(insert(LabelRow), [_label(case_id) for case_id in chunk])
            session.execute(
                update(CaseRow)
                .where(CaseRow.id.in_(chunk))
                .values(
                    state=CaseState.LABELED if done else CaseState.OPEN,
                    started=True,
                    taken=1,
                    labeled=1,
                    wanted=wanted,
                    annotator=_AHEAD,
                ),
                execution_options={"synchronize_session": False},
            )
        if done:
            session.execute(
                text(
                    "INSERT INTO relabel_decisions (case_id, label_id, resolution, labels, agreement, created_at)"
                    " SELECT case_id, id, 'single', 1, 1.0, created_at FROM relabel_labels ORDER BY id"
                )
            )


def vacuum(database: Database) -> None:
    """What the database does by itself after a while."""
    with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


def annotate(queue: CaseQueue, seconds: float, think_s: float) -> dict[str, float]:
    """Latencies in milliseconds of 20 annotators at once."""
    took: dict[str, list[float]] = {"claim": [], "submit": []}
    errors: list[BaseException] = []
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        draw = random.Random(number)
        name = f"annotator {number}"
        try:
            time.sleep(draw.random() * think_s)
            while time.monotonic() < until:
                began = time.perf_counter()
                case = queue.claim(name, "chat")
                took["claim"].append(time.perf_counter() - began)
                if case is None:
                    raise RuntimeError("the queue ran empty: give more cases")
                time.sleep(draw.expovariate(1 / think_s) if think_s else 0)
                label = Label(draw.choice((Rating.GOOD, Rating.BAD)))
                began = time.perf_counter()
                queue.submit(case.id, name, label, version=case.version)
                took["submit"].append(time.perf_counter() - began)
                time.sleep(draw.expovariate(1 / think_s) if think_s else 0)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_THREADS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    found: dict[str, float] = {"labels_per_s": round(len(took["submit"]) / (time.monotonic() - began), 1)}
    for call, samples in took.items():
        cuts = statistics.quantiles(samples, n=1000, method="inclusive")
        found[f"{call}_p50_ms"] = round(cuts[499] * 1000, 2)
        found[f"{call}_p99_ms"] = round(cuts[989] * 1000, 2)
    return found


def reads(queue: CaseQueue) -> dict[str, float]:
    """The median of seven, in milliseconds, of what the page reads."""
    middle = _START + timedelta(seconds=50_000)
    late = _START + timedelta(seconds=99_900)
    asked: Mapping[str, Callable[[], object]] = {
        "list": lambda: queue.list(),
        "list endpoint": lambda: queue.list(endpoint="chat"),
        "list open": lambda: queue.list(endpoint="chat", state=CaseState.OPEN),
        "list labeled": lambda: queue.list(state=CaseState.LABELED),
        "list since the middle": lambda: queue.list(endpoint="chat", since=middle),
        "list since late": lambda: queue.list(endpoint="chat", since=late),
        "list since late everywhere": lambda: queue.list(since=late),
        "list open since late": lambda: queue.list(endpoint="chat", state=CaseState.OPEN, since=late),
        "list until early": lambda: queue.list(endpoint="chat", until=_START + timedelta(seconds=100)),
        "list common evaluator": lambda: queue.list(endpoint="chat", evaluator="toxicity"),
        "list rare evaluator": lambda: queue.list(endpoint="chat", evaluator="rare"),
        "list no evaluator": lambda: queue.list(evaluator="none"),
        "list annotator ahead": lambda: queue.list(annotator=_AHEAD),
        "list annotator": lambda: queue.list(annotator="annotator 7"),
        "list annotator labeled": lambda: queue.list(annotator=_AHEAD, state=CaseState.LABELED),
        "list deep page": lambda: queue.list(endpoint="chat", cursor="0.50"),
        "counts": lambda: queue.counts(),
        "counts endpoint": lambda: queue.counts("chat"),
        "get": lambda: queue.get(4_711),
        "history": lambda: queue.history(4_711),
    }
    found: dict[str, float] = {}
    for name, ask in asked.items():
        samples: list[float] = []
        for _ in range(7):
            began = time.perf_counter()
            ask()
            samples.append(time.perf_counter() - began)
        found[name] = round(statistics.median(samples) * 1000, 2)
    return found


def _case(number: int, draw: random.Random) -> dict[str, Any]:
    prompt, answer = f"{number}: {_PROMPT}", f"{_ANSWER} {number}"
    moment = _START + timedelta(seconds=number)
    return {
        "id": number,
        "endpoint": "chat",
        "databricks_request_id": f"request-{number:08d}",
        "content_hash": f"{number:064x}",
        "state": CaseState.OPEN,
        "priority": draw.randrange(10),
        "occurrences": 1,
        "version": 1,
        "served_entity": "champion",
        "model": "smollm2",
        "request_time": moment,
        "created_at": moment,
        "updated_at": moment,
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}],
        "answered": True,
        "scores": [{"evaluator": "toxicity", "target": "response", "score": 0.9, "label": None}],
        "prompt_text": prompt,
        "response_text": answer,
    }


def _reason(number: int, draw: random.Random) -> dict[str, Any]:
    evaluator = "rare" if number % 10_000 == 0 else draw.choice(("toxicity", "perplexity"))
    return {
        "case_id": number,
        "rule": f"{evaluator} response above",
        "kind": "score",
        "evaluator": evaluator,
        "target": "response",
        "direction": "above",
        "threshold": 0.5,
        "score": 0.9,
        "priority": 1,
        "created_at": _START,
    }


def _occurrence(number: int) -> dict[str, Any]:
    return {
        "endpoint": "chat",
        "databricks_request_id": f"request-{number:08d}",
        "case_id": number,
        "request_time": _START,
    }


def _selected(number: int) -> dict[str, Any]:
    return {
        "case_id": number,
        "at": _START,
        "from_state": None,
        "to_state": CaseState.OPEN,
        "actor": "selection",
        "event": "selected",
    }


def _claim(case_id: int) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "annotator": _AHEAD,
        "state": ClaimState.LABELED,
        "version": 2,
        "schema_version": 0,
        "is_adjudication": False,
        "claimed_at": _START,
    }


def _label(case_id: int) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "annotator": _AHEAD,
        "rating": Rating.GOOD if case_id % 3 else Rating.BAD,
        "corrected_answer": None if case_id % 2 else f"A better answer to {case_id}.",
        "tags": [],
        "created_at": _START,
    }


if __name__ == "__main__":
    raise SystemExit(main())
