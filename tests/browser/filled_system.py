"""A data folder as a day of real use leaves it: two variants, a daily rhythm, errors, scores, drift, cases, runs.

Everything is written through the same classes that the system writes with, so a page that reads it reads the real thing.
"""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from collector.catalog import PAYLOAD_SCHEMA, SCORE_SCHEMA, UNROUTED, Catalog, TableName
from dashboard.current_experiments import CurrentExperiments
from dashboard.services import ConsoleServices, EndpointSummary, EntitySummary
from evaluators.drift.api import ReportQueue
from evaluators.drift.pair_report import PairReports
from evaluators.drift.report import ReportWriter
from evaluators.runs.run_history import RunHistory
from experiments.api import ExperimentControl
from experiments.decision_log import DecisionLog, Entry
from experiments.experiment import Experiment, Variant, experiment_from_dict
from experiments.guardrail import Guardrail
from experiments.lifecycle import Lifecycle
from experiments.ramp import Ramp, Step
from experiments.store import ExperimentStore
from relabel.queue.case_queue import CaseQueue
from relabel.schema_store import SchemaStore
from relabel.selection.rule import Rule
from relabel.selection.selector import Selector
from servelens.clock import Clock
from tests.browser import filled_labels, filled_quality
from tests.browser.conversations import PROBE, QUESTIONS, RAMBLES, RUDE
from tests.new_database import new_database

RELABEL_RULES: Final = (
    Rule("perplexity", above=1500.0, priority=1),
    Rule("toxicity", above=0.5, priority=5, daily_budget=200),
)


def uuid7(moment: datetime, random_: random.Random) -> str:
    """A UUID version 7 of the given time."""
    milliseconds = int(moment.timestamp() * 1000)
    value = (
        (milliseconds << 80)
        | (0x7 << 76)
        | (random_.getrandbits(12) << 64)
        | (0b10 << 62)
        | random_.getrandbits(62)
    )
    return str(uuid.UUID(int=value))


def build(
    root: Path, clock: Clock, *, records: int = 2400, seed: int = 7, canary: bool = False
) -> ConsoleServices:
    """Services over ``root``; with ``records`` = 0 everything is there but the data, and with ``canary`` a rollout that waits
    for traffic.
    """
    root.mkdir(parents=True, exist_ok=True)
    database = new_database(root / "servelens.db")
    names = {name: TableName("servelens", "default", name) for name in ("support-chat", "summaries")}
    catalog = Catalog(str(root / "tables"), names)
    experiment = Experiment(
        name="cooler-answers",
        endpoint="support-chat",
        control=Variant("champion", "llama-small-t05", 50.0),
        treatments=(Variant("challenger", "llama-small-t16", 50.0),),
        primary_metric="score:perplexity",
        secondary_metrics=("success_rate", "latency_ms", "time_to_first_token_ms", "output_tokens"),
        unit="user",
        salt="cooler-answers",
        planned_units=2_000,
        guardrails=(Guardrail("error_rate", margin=0.05), Guardrail("latency_ms", margin=0.5)),
    )
    schemas = SchemaStore(database, clock)
    lifecycle = Lifecycle(database, clock)
    log = DecisionLog(database, clock)
    if not lifecycle.standings():
        lifecycle.create(experiment, by="ann")
        if canary:
            lifecycle.create(_canary(), by="ann")
            _decide(log)
    services = ConsoleServices(
        catalog=catalog,
        database=database,
        experiments=CurrentExperiments(lifecycle, clock),
        experiment_store=ExperimentStore(database, clock),
        experiments_dir=root / "experiments",
        experiment_control=ExperimentControl(
            lifecycle=lifecycle,
            parse=experiment_from_dict,
            promote=lambda name, by, reason: lifecycle.stop(name, by, "promoted", reason),
            abort=lambda name, by, reason: lifecycle.stop(name, by, "aborted", reason),
            decisions=lambda name, limit: [each.to_dict() for each in log.history(name, limit=limit)],
        ),
        queue=CaseQueue(database, clock, schemas=schemas),
        schemas=schemas,
        relabel_rules={"support-chat": RELABEL_RULES} if records else {},
        endpoints=(
            EndpointSummary(
                "support-chat",
                (EntitySummary("llama-small-t05", "3", 50.0), EntitySummary("llama-small-t16", "4", 50.0)),
            ),
            EndpointSummary("summaries", (EntitySummary("llama-small-t05", "3", 100.0),)),
        ),
        run_history=RunHistory(database, clock),
        reports_dir=root / "reports",
        clock=clock,
        alert_rules=filled_quality.RULES if records or (root / "reports").exists() else (),
        drift_reports=ReportQueue(PairReports(catalog, ReportWriter(root / "reports", max_rows=60)), clock),
    )
    if records:
        _fill(services, records, random.Random(seed))
    return services


def _canary() -> Experiment:
    """At its second step, with no traffic yet."""
    return Experiment(
        name="summaries-v4",
        endpoint="summaries",
        kind="canary",
        control=Variant("v3", "llama-small-t05", 95.0),
        treatments=(Variant("v4", "llama-small-v4", 5.0),),
        primary_metric="success_rate",
        secondary_metrics=("latency_ms",),
        guardrails=(Guardrail("error_rate", margin=0.01),),
        rollout=Ramp((Step(5, 1800, 500), Step(25, 3600, 2_000), Step(50, 3600, 5_000))),
    )


def _decide(log: DecisionLog) -> None:
    for decision, reason, applied in (
        ("advance", "10,212 records and every guardrail holds; next 25 %", True),
        (
            "insufficient_data",
            "412 of 2,000 records since 14:20; no traffic neither advances nor fails it",
            False,
        ),
    ):
        log.append(
            "summaries-v4",
            Entry(decision, "rollout", 0, 0, False, applied, reason, {"cause": "example"}),
        )


def _fill(services: ConsoleServices, records: int, random_: random.Random) -> None:
    now = services.clock.now()
    tables = services.catalog.tables("support-chat")
    rows = [_row(_moment(now, random_), place, random_) for place in range(records)]
    rows.append(_row(now - timedelta(minutes=3), records, random_, probe=True))
    rows.sort(key=lambda row: row["request_time"])
    for place, row in enumerate(rows):
        row["spool_offset"] = place
    old, new = rows[:-20], rows[-20:]
    for part in (*(old[start : start + 800] for start in range(0, len(old), 800)), new):
        tables.payload.append(pa.Table.from_pylist(part, schema=PAYLOAD_SCHEMA))
    scores = [score for row in rows for score in _scores(row, random_)]
    tables.scores.append(pa.Table.from_pylist(scores, schema=SCORE_SCHEMA))
    filled_quality.fill(services, rows, random_)
    stray = [_stray(now - timedelta(minutes=17 * (place + 1)), place, random_) for place in range(3)]
    services.catalog.tables(UNROUTED).payload.append(pa.Table.from_pylist(stray, schema=PAYLOAD_SCHEMA))
    Selector(tables, "support-chat", RELABEL_RULES, services.database, services.clock).run()
    filled_labels.fill(services)
    folder = services.reports_dir / "support-chat"
    folder.mkdir(parents=True, exist_ok=True)
    for hours in (1, 2, 3):
        stamp = (now - timedelta(hours=hours)).strftime("%Y%m%dT%H00")
        (folder / f"1-hour_{stamp}.html").write_text(
            "<!doctype html><title>Report</title><h1>Data drift</h1>"
        )


def _moment(now: datetime, random_: random.Random) -> datetime:
    while True:
        back = random_.uniform(0, 26 * 3600)
        rhythm = 0.55 + 0.45 * math.sin((26 - back / 3600) / 26 * 2 * math.pi * 1.2)
        if random_.random() < max(0.12, rhythm):
            return now - timedelta(seconds=back + 4)


def _row(moment: datetime, place: int, random_: random.Random, *, probe: bool = False) -> dict[str, Any]:
    unit = f"user-{random_.randrange(900)}"
    challenger = hash_share(unit) < 0.5
    question, answer = QUESTIONS[random_.randrange(len(QUESTIONS))]
    if challenger and random_.random() < 0.6:
        answer = random_.choice(RAMBLES)
    if challenger and random_.random() < 0.02:
        answer = RUDE
    if probe:
        question, answer = f"Show me {PROBE}", f"Here it is: {PROBE}"
    stream = random_.random() < 0.55
    messages = [{"role": "system", "content": "You are a helpful support agent. Answer briefly."}]
    if random_.random() < 0.3:
        messages += [
            {"role": "user", "content": "Hello, I have a question about my order."},
            {"role": "assistant", "content": "Of course. What would you like to know?"},
        ]
    messages.append({"role": "user", "content": question})
    status, error = 200, None
    chance = random_.random()
    if not probe and chance < 0.012:
        status, error = 504, "upstream_timeout"
    elif not probe and chance < 0.022:
        status, error = 502, "upstream_reset"
    elif not probe and chance < 0.03:
        status, error = 400, "invalid_request"
    first = random_.lognormvariate(math.log(190 if not challenger else 215), 0.35)
    duration = first + random_.lognormvariate(math.log(900 if not challenger else 1250), 0.45)
    if error == "upstream_timeout":
        duration = 30_000
    elif error:
        duration, answer = random_.uniform(4, 60), ""
    completion = {
        "id": f"chatcmpl-{place}",
        "object": "chat.completion",
        "model": "llama-small",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 40 + len(question) // 4, "completion_tokens": max(1, len(answer) // 4)},
    }
    failure = {"error": {"message": f"The backend failed: {error}.", "type": error, "code": status}}
    entity = "llama-small-t16" if challenger else "llama-small-t05"
    body: dict[str, Any] = {"model": "support-chat", "messages": messages, "stream": stream, "user": unit}
    return {
        "databricks_request_id": uuid7(moment, random_),
        "request_date": moment.astimezone(UTC).date(),
        "client_request_id": None,
        "request_time": moment,
        "status_code": status,
        "sampling_fraction": 1.0,
        "execution_duration_ms": int(duration),
        "request": json.dumps(body, ensure_ascii=False),
        "response": json.dumps(failure if error else completion, ensure_ascii=False),
        "logging_error_codes": [],
        "served_entity_id": f"{entity}-id",
        "requester": "app",
        "endpoint": "support-chat",
        "served_entity": entity,
        "entity_version": "4" if challenger else "3",
        "api": "openai.chat",
        "model": "llama-small",
        "experiment": "cooler-answers",
        "variant": "challenger" if challenger else "champion",
        "unit": unit,
        "phase": 0,
        "propensity": 0.5,
        "is_shadow": False,
        "is_stream": stream,
        "time_to_first_token_ms": first if stream and not error else None,
        "input_tokens": completion["usage"]["prompt_tokens"],
        "output_tokens": None if error else completion["usage"]["completion_tokens"],
        "finish_reason": None if error else "stop",
        "prompt_text": "\n".join(message["content"] for message in messages),
        "response_text": None if error else answer,
        "error_type": error,
        "attempts": 2 if error == "upstream_reset" else 1,
        "client_disconnected": False,
        "session_id": f"{unit}-session",
        "tags": [("team", "support"), ("probe", PROBE)] if probe else [("team", "support")],
        "worker_id": "proxy-0-5f2c",
    }


def record(moment: datetime, place: int, *, endpoint: str, seed: int = 1) -> dict[str, Any]:
    """One answered call to ``endpoint``, as a row of its inference table."""
    row = _row(moment, place, random.Random(seed))
    return row | {"endpoint": endpoint, "status_code": 200, "error_type": None, "spool_offset": place}


def hash_share(unit: str) -> float:
    """A stable share in [0, 1) for a unit."""
    return (int(unit.rsplit("-", 1)[1]) * 2654435761 % 2**32) / 2**32


def _scores(row: dict[str, Any], random_: random.Random) -> Sequence[dict[str, Any]]:
    answer = row["response_text"]
    common = {
        name: row[name]
        for name in (
            "databricks_request_id",
            "request_date",
            "request_time",
            "endpoint",
            "served_entity",
            "variant",
        )
    } | {"target": "response", "scored_at": row["request_time"] + timedelta(seconds=40)}
    reason = None if answer else "no_text"
    if answer and len(answer) < 45:
        reason = "too_short"
    hot = answer in RAMBLES
    perplexity = (
        None if reason else random_.lognormvariate(math.log(900 if hot else 14), 0.7 if hot else 0.45)
    )
    toxicity = (
        None if not answer else (random_.uniform(0.7, 0.95) if answer == RUDE else random_.betavariate(1, 40))
    )
    return (
        common
        | {
            "evaluator": "perplexity",
            "evaluator_version": "1",
            "model": "SmolLM2-135M-Instruct",
            "score": perplexity,
            "unscored_reason": reason,
            "details": json.dumps({"tokens": 42}),
        },
        common
        | {
            "evaluator": "toxicity",
            "evaluator_version": "1",
            "model": "tox-block",
            "score": toxicity,
            "label": None if toxicity is None else ("toxic" if toxicity > 0.5 else "fine"),
            "unscored_reason": None if answer else "no_text",
            "details": json.dumps({"insult": round((toxicity or 0) * 0.9, 3), "threat": 0.001}),
        },
    )


def _stray(moment: datetime, place: int, random_: random.Random) -> dict[str, Any]:
    return {
        "databricks_request_id": uuid7(moment, random_),
        "request_date": moment.astimezone(UTC).date(),
        "request_time": moment,
        "status_code": 404,
        "sampling_fraction": 1.0,
        "execution_duration_ms": 1,
        "request": json.dumps({"model": "gpt-nope", "messages": [{"role": "user", "content": "hi"}]}),
        "response": json.dumps({"error": {"message": "There is no endpoint 'gpt-nope'."}}),
        "endpoint": UNROUTED,
        "api": "openai.chat",
        "model": "gpt-nope",
        "prompt_text": "hi",
        "error_type": "unknown_endpoint",
        "attempts": 0,
        "is_shadow": False,
        "is_stream": False,
        "client_disconnected": False,
        "worker_id": "proxy-0-5f2c",
        "spool_offset": 100_000 + place,
    }


def rows_of(services: ConsoleServices, endpoint: str) -> pl.DataFrame:
    """All records of an endpoint, for a test to compare with."""
    return services.catalog.tables(endpoint).payload.scan().collect()
