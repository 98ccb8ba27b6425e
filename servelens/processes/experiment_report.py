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
from servelens.errors import Conflict
from servelens.settings_file import load_settings


def run(config: Path, name: str) -> int:
    """Analyse ``name`` now, keep the analysis as any other look, and print its report."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        endpoints = open_endpoint_store(settings, database, SystemClock())
        standing = open_lifecycle(settings, database, SystemClock()).standing(name)
        experiment = standing.experiment
        if standing.state == "draft":
            raise Conflict(
                f"experiment '{name}' is a draft, so there is nothing to look at.",
                fix=f"Run: servelens experiment start {name}",
            )
        tables = build_catalog(settings, endpoints).tables(experiment.endpoint)
        store = ExperimentStore(database, SystemClock())
        report = Analyzer(tables, store, SystemClock()).analyze(experiment)
    finally:
        database.dispose()
    sys.stdout.write(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return 0
