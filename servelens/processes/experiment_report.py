"""``servelens experiment report``: one look at one experiment, as JSON on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from experiments.analysis.analyzer import Analyzer
from experiments.store import ExperimentStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.experiments import open_lifecycle
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.settings_file import load_settings


def run(config: Path, name: str) -> int:
    """Analyse ``name`` now, keep the analysis as any other look, and print its report."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        endpoints = open_endpoint_store(settings, database, SystemClock())
        experiment = open_lifecycle(settings, database, SystemClock()).standing(name).experiment
        tables = build_catalog(settings, endpoints).tables(experiment.endpoint)
        store = ExperimentStore(database, SystemClock())
        report = Analyzer(tables, store, SystemClock()).analyze(name)
    finally:
        database.dispose()
    sys.stdout.write(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return 0
