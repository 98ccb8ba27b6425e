"""``servelens experiment plan``: how long an experiment must run, from the endpoint's own recent traffic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.table import Table

from experiments.experiment import Experiment
from experiments.lifecycle import Lifecycle
from experiments.plan import ExperimentPlan, MetricPlan, make_plan
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.experiments import build_experiments
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.control.experiment_requests import requested_experiment
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import Missing
from servelens.processes.experiments import block_of, print_out
from servelens.settings import Settings
from servelens.settings_file import load_settings


def run(
    config: Path,
    what: str,
    *,
    effect: float,
    power: float,
    days: float,
    run_days: float | None,
    as_json: bool,
) -> int:
    """Plan the experiment of that name, or the one in that YAML file, and print what it needs."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        clock = SystemClock()
        endpoints = open_endpoint_store(settings, database, clock)
        experiment = _experiment(settings, database, endpoints, what)
        tables = build_catalog(settings, endpoints).tables(experiment.endpoint)
        plan = make_plan(
            experiment, tables, clock.now(), effect=effect, power=power, days=days, run_days=run_days
        )
    finally:
        database.dispose()
    if as_json:
        sys.stdout.write(json.dumps(plan.to_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        _show(plan)
    return 0


def _experiment(settings: Settings, database: Database, endpoints: EndpointStore, what: str) -> Experiment:
    if Path(what).suffix in (".yaml", ".yml"):
        return requested_experiment(block_of(Path(what)), endpoints)
    known = {each.experiment.name: each.experiment for each in Lifecycle(database, SystemClock()).standings()}
    known |= {experiment.name: experiment for experiment in build_experiments(settings)}
    if what not in known:
        names = ", ".join(sorted(known)) or "there is none"
        raise Missing(
            f"there is no experiment '{what}'.", fix=f"Use one of: {names}; or a YAML file with one in it."
        )
    return known[what]


def _show(plan: ExperimentPlan) -> None:
    window = "day" if plan.window_days == 1 else f"{plan.window_days:g} days"
    print_out(
        f"{plan.experiment} on {plan.endpoint}: {plan.units_per_day:,.0f} {plan.unit}s a day over the last {window}.\n"
        f"To find a change of {plan.effect * 100:g} % with a probability of {plan.power * 100:g} % (alpha {plan.alpha:g}):"
    )
    table = Table()
    for head in (
        "metric",
        "treatment",
        "now",
        "to find",
        "design",
        f"{plan.unit}s",
        "days",
        "half of the time by",
    ):
        table.add_column(head, justify="left" if head in ("metric", "treatment", "design") else "right")
    for each in plan.metrics:
        _add(table, each)
    for each in plan.guardrails:
        _add(table, each, prefix="guardrail: ")
    print_out(table)
    for each in plan.metrics:
        if each.detectable is not None:
            given = (
                f"{plan.planned_units:,} {plan.unit}s" if plan.run_days is None else f"{plan.run_days:g} days"
            )
            print_out(f"With {given}, a change of {each.detectable * 100:+.3g} % in {each.label} is found.")


def _add(table: Table, plan: MetricPlan, prefix: str = "") -> None:
    now = "–" if plan.baseline is None else f"{plan.baseline:.4g}"
    if plan.reason is not None:
        table.add_row(f"{prefix}{plan.label}", plan.treatment, now, "–", plan.reason, "–", "–", "–")
        return
    for place, need in enumerate(plan.needs):
        median = "–" if need.median_units is None else f"{need.median_units:,.0f}"
        first = place == 0
        table.add_row(
            f"{prefix}{plan.label}" if first else "",
            plan.treatment if first else "",
            now if first else "",
            f"{(plan.effect or 0.0) * 100:+.3g} %" if first else "",
            need.design,
            f"{need.units:,}",
            f"{need.days:,.3g}",
            median,
        )
