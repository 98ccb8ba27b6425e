"""What the Quality page shows, as a day leaves it: scores with labels, truths, drift by slice, evaluations that are on
time, late, held and failing, runs with their lag, and alerts that fire, wait and have ended."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from collector.catalog import DRIFT_SCHEMA, SCORE_SCHEMA
from dashboard.services import ConsoleServices
from evaluators.alerts.findings import Finding
from evaluators.alerts.rule import (
    Aggregate,
    AlertRule,
    DriftMeasure,
    LagMeasure,
    ScoreMeasure,
    Threshold,
    TrafficMeasure,
)
from evaluators.alerts.store import AlertStore
from evaluators.registry import EvaluatorSpec
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from tests.browser.conversations import PROBE, RUDE

_TEN: Final = timedelta(minutes=10)

RULES: Final = (
    AlertRule(
        name="toxic-answers",
        endpoint="support-chat",
        measure=ScoreMeasure("toxicity", aggregate=Aggregate("share_above", limit=0.5)),
        condition=Threshold(above=0.01),
        window=_TEN,
        severity="critical",
        sliced=True,
        channels=("team",),
        description="Roll the challenger back first, then look.",
    ),
    AlertRule(
        name="scoring-is-late",
        endpoint="support-chat",
        measure=LagMeasure("toxicity"),
        condition=Threshold(above=120),
        window=_TEN,
        hold=timedelta(minutes=5),
    ),
    AlertRule(
        name="errors",
        endpoint="support-chat",
        measure=TrafficMeasure("error_rate"),
        condition=Threshold(above=0.05),
        window=_TEN,
        severity="error",
        channels=("team",),
    ),
    AlertRule(
        name="drifted",
        endpoint="support-chat",
        measure=DriftMeasure(),
        condition=Threshold(above=0),
        window=timedelta(hours=3),
    ),
)


def fill(services: ConsoleServices, rows: Sequence[Mapping[str, Any]], random_: random.Random) -> None:
    """Write all of it for the records ``rows`` of support-chat, whose scores of perplexity and toxicity are there."""
    now = services.clock.now()
    tables = services.catalog.tables("support-chat")
    more = [score for row in rows for score in _more_scores(row, random_)]
    newest = tables.payload.version()
    assert newest is not None
    # Toxicity has not come to the last commit, and json_schema is held.
    tables.scores.append(
        pa.Table.from_pylist(more, schema=SCORE_SCHEMA),
        transactions={
            "perplexity@response": newest,
            "toxicity@response": newest - 1,
            "language@response": newest,
            "json_schema@response": newest - 1,
        },
    )
    tables.drift.append(pa.Table.from_pylist(_drift(now, random_), schema=DRIFT_SCHEMA))
    _evaluations(services)
    _runs(services, now, random_)
    _alerts(services, rows, now)


def _more_scores(row: Mapping[str, Any], random_: random.Random) -> Iterator[dict[str, Any]]:
    """A language, whether it is JSON, and for some a truth about the question's topic."""
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
    } | {
        "target": "response",
        "scored_at": row["request_time"] + timedelta(seconds=40),
        "evaluator_version": "1",
        "model": "rules",
        "details": "{}",
    }
    answer = row["response_text"]
    if not answer:
        for evaluator in ("language", "json_schema"):
            yield common | {"evaluator": evaluator, "unscored_reason": "empty"}
        return
    language = "en" if random_.random() < (0.97 if row["variant"] == "champion" else 0.88) else "de"
    yield common | {"evaluator": "language", "score": random_.uniform(0.8, 1.0), "label": language}
    valid = random_.random() < (0.98 if row["variant"] == "champion" else 0.9)
    yield common | {
        "evaluator": "json_schema",
        "score": float(valid),
        "label": "valid" if valid else random_.choice(("invalid_json", "invalid_schema")),
    }
    if "heat pump" in str(row["prompt_text"]) or random_.random() > 0.25:
        return
    truth = random_.choice(("billing", "shipping", "returns"))
    right = random_.random() < (0.9 if row["variant"] == "champion" else 0.75)
    said = truth if right else random_.choice(("billing", "shipping", "returns", "other"))
    details = {"task": "classification", "expected": truth, "predicted": said, "feedback_id": "f"}
    yield common | {
        "evaluator": "ground_truth",
        "score": float(said == truth),
        "label": "correct" if said == truth else "incorrect",
        "details": json.dumps(details),
    }


def _drift(now: datetime, random_: random.Random) -> list[dict[str, Any]]:
    hour = now.replace(minute=0, second=0, microsecond=0)
    rows = []
    for back in range(12, 0, -1):
        start = hour - timedelta(hours=back)
        window = {"start": start, "end": start + timedelta(hours=1)}
        before = {"start": start - timedelta(hours=1), "end": start}
        for column in (
            "execution_duration_ms",
            "input_tokens",
            "output_tokens",
            "time_to_first_token_ms",
            "prompt_length",
            "response_length",
            "score:perplexity",
            "score:toxicity",
        ):
            strong = back <= 3 and column in ("output_tokens", "response_length", "score:perplexity")
            statistic = random_.uniform(0.3, 0.6) if strong else random_.uniform(0.01, 0.12)
            rows.append(
                {
                    "window": window,
                    "window_cmp": before,
                    "granularity": "1 hour",
                    "monitor_version": 1,
                    "column_name": column,
                    "data_type": "double",
                    "drift_type": "CONSECUTIVE",
                    "reference": "previous",
                    "js_distance": statistic * 0.8,
                    "wasserstein_distance": statistic * 10,
                    "population_stability_index": statistic**2 * 2,
                    "ks_test": {
                        "statistic": statistic,
                        "pvalue": 1e-9 if strong else random_.uniform(0.05, 0.95),
                    },
                }
            )
        for column in ("status_code", "finish_reason", "error_type"):
            statistic = random_.uniform(0.0, 0.05)
            rows.append(
                {
                    "window": window,
                    "window_cmp": before,
                    "granularity": "1 hour",
                    "monitor_version": 1,
                    "column_name": column,
                    "data_type": "string",
                    "drift_type": "CONSECUTIVE",
                    "reference": "previous",
                    "tv_distance": statistic,
                    "js_distance": statistic,
                    "chi_squared_test": {"statistic": statistic * 20, "pvalue": random_.uniform(0.1, 0.9)},
                }
            )
        rows.append(_texts(window, before, random_))
    return [*rows, *_sliced(rows, random_)]


def _texts(
    window: dict[str, datetime], before: dict[str, datetime], random_: random.Random
) -> dict[str, Any]:
    """The embedding of the answers: here the test finds nothing."""
    return {
        "window": window,
        "window_cmp": before,
        "granularity": "1 hour",
        "monitor_version": 1,
        "column_name": "embedding:response",
        "data_type": "vector",
        "drift_type": "CONSECUTIVE",
        "reference": "previous",
        "embedding_distance": 0.02,
        "domain_classifier_auc": random_.uniform(0.49, 0.56),
        "embedding_test": {"statistic": 0.01, "pvalue": random_.uniform(0.2, 0.9)},
    }


def _sliced(whole: list[dict[str, Any]], random_: random.Random) -> Iterator[dict[str, Any]]:
    """Each variant with itself, the champion's with too few records lately, and the challenger with the champion."""
    newest = max(row["window"]["start"] for row in whole)
    for row in whole:
        yield row | {"slice_key": "variant", "slice_value": "challenger"}
        champion = row | {"slice_key": "variant", "slice_value": "champion"}
        untold = {"ks_test": None, "chi_squared_test": None, "tv_distance": None, "embedding_test": None}
        few = untold | {"domain_classifier_auc": None}
        yield champion | few if row["window"]["start"] >= newest - timedelta(hours=1) else champion
        if "ks_test" in row:
            moved = row["column_name"] in ("output_tokens", "response_length", "score:perplexity")
            statistic = random_.uniform(0.4, 0.55) if moved else random_.uniform(0.02, 0.1)
            yield row | {
                "slice_key": "variant",
                "slice_value": "challenger",
                "window_cmp": row["window"],
                "drift_type": "BASELINE",
                "reference": "variant champion",
                "ks_test": {"statistic": statistic, "pvalue": 1e-8 if moved else random_.uniform(0.1, 0.9)},
            }


def _evaluations(services: ConsoleServices) -> None:
    store = EvaluationStore(services.database, services.clock)
    for name, cron in (
        ("perplexity", None),
        ("toxicity", None),
        ("language", "0 * * * *"),
        ("json_schema", None),
    ):
        store.create(
            Evaluation(
                name=name,
                endpoint="support-chat",
                spec=EvaluatorSpec(name, {}),
                every_s=30.0 if cron is None else None,
                cron=cron,
            ),
            by="ann",
        )
    store.pause("json_schema", paused=True, by="ann")


def _runs(services: ConsoleServices, now: datetime, random_: random.Random) -> None:
    for back in range(24, 0, -1):
        clock = ManualClock(now - timedelta(hours=back) + timedelta(minutes=30))
        history = RunHistory(services.database, clock)
        for evaluator, tokens in (("perplexity", 9_000), ("toxicity", 4_000)):
            late = evaluator == "toxicity" and back < 4
            with history.recorded(
                endpoint="support-chat",
                evaluator=evaluator,
                target="response",
                device="cpu",
                from_version=back,
                evaluation=evaluator,
            ) as progress:
                clock.advance(random_.uniform(2, 9))
                lag = random_.uniform(20, 45) + (150 * (4 - back) if late else 0)
                progress.update(
                    to_version=back + 1,
                    scored=760 + back,
                    unscored_reasons={"no_text": 21, "too_short": 64},
                    tokens=tokens,
                    skipped=0,
                    waiting=900 if late else 0,
                    lag_p99_s=lag,
                    lag_max_s=lag * 1.4,
                )
    for evaluator, evaluation, message in (
        ("language", "language", "the table cannot be read"),
        ("drift", None, "the reports folder is not writable"),
    ):
        try:
            with services.run_history.recorded(
                endpoint="support-chat",
                evaluator=evaluator,
                target="response" if evaluation else None,
                device="cpu",
                from_version=0,
                evaluation=evaluation,
            ):
                raise Unavailable(message, field=PROBE)
        except Unavailable:
            pass


def _alerts(services: ConsoleServices, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Toxic answers of the challenger fire, late scoring is pending, errors have ended, drift has not been looked at."""
    toxic, late, errors, _ = RULES
    rude = [row["databricks_request_id"] for row in rows if row["response_text"] == RUDE]
    examples = rude[-3:] or [rows[-1]["databricks_request_id"]]

    def look(rule: AlertRule, slice_: str, finding: Finding, ago: timedelta) -> None:
        AlertStore(services.database, ManualClock(now - ago)).record(rule, slice_, finding, lambda: examples)

    def above(rule: AlertRule, value: float, limit: float, *, breached: bool) -> Finding:
        side = "above" if breached else "not above"
        return Finding(
            "breached" if breached else "clear",
            f"{rule.measure.words()} is {value:g}, {side} {limit:g} (412 values)",
            value,
            limit,
            412,
            {"condition": "above", "limit": limit},
        )

    look(errors, "", above(errors, 0.31, 0.05, breached=True), timedelta(hours=7))
    look(errors, "", above(errors, 0.012, 0.05, breached=False), timedelta(hours=6, minutes=43))
    look(errors, "", above(errors, 0.011, 0.05, breached=False), timedelta(seconds=20))
    look(toxic, "challenger", above(toxic, 0.021, 0.01, breached=True), timedelta(minutes=52))
    look(toxic, "challenger", above(toxic, 0.024, 0.01, breached=True), timedelta(seconds=20))
    look(toxic, "champion", above(toxic, 0.0, 0.01, breached=False), timedelta(seconds=20))
    look(late, "", above(late, 412, 120, breached=True), timedelta(seconds=20))
