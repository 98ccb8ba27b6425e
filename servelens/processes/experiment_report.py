"""``servelens experiment report``: one look at one experiment, as JSON on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from experiments.analysis.analyzer import Analyzer
from experiments.store import ExperimentStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.experiments import build_experiments
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.errors import Missing
from servelens.settings_file import load_settings


def run(config: Path, name: str) -> int:
    """Analyse ``name`` now, keep the analysis as any other look, and print its report."""
    settings = load_settings(config)
    experiments = {experiment.name: experiment for experiment in build_experiments(settings)}
    if name not in experiments:
        known = ", ".join(experiments) or "none is configured"
        raise Missing(f"there is no experiment '{name}'.", fix=f"Use one of: {known}.")
    database = build_database(settings)
    try:
        endpoints = open_endpoint_store(settings, database, SystemClock())
        store = ExperimentStore(database, SystemClock())
        experiment = store.register(experiments[name]).experiment
        tables = build_catalog(settings, endpoints).tables(experiment.endpoint)
        report = Analyzer(tables, store, SystemClock()).analyze(experiment)
    finally:
        database.dispose()
    sys.stdout.write(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return 0
