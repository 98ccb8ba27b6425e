"""Selection as the scheduler runs it: the settings' rules, and the shadows' answers with the cases."""

from __future__ import annotations

import threading
from pathlib import Path

import yaml

from relabel.queue.case_queue import CaseQueue
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.processes.scheduler import build_jobs
from servelens.settings_file import load_settings
from tests.relabel_cases import append_rows, payload_row
from tests.selection_rows import shadow_row
from tests.unit.servelens.control_settings import backend


def test_cases_have_what_shadows_answered(tmp_path: Path) -> None:
    config = tmp_path / "servelens.yaml"
    file = {
        "data_dir": str(tmp_path / "data"),
        "endpoints": [{"name": "chat", "config": {"served_entities": [backend()]}}],
        "relabel": {"rules": [{"endpoint": "chat", "kind": "random", "fraction": 1.0}]},
    }
    config.write_text(yaml.safe_dump(file))
    (tmp_path / "data").mkdir()
    settings, clock = load_settings(config), SystemClock()
    database = build_database(settings)
    try:
        catalog = build_catalog(settings, open_endpoint_store(settings, database, clock))
        jobs = build_jobs(settings, catalog, database, clock, threading.Event())
        [select] = [each for each in jobs if each.name == "select cases chat"]
        assert select.action() == 0
        append_rows(catalog.tables("chat"), [payload_row(1), shadow_row(2, 1, "another answer")], [])
        assert select.action() == 1
        [answer] = CaseQueue(database, clock).get(1).alternatives
        assert (answer.source, answer.text) == ("shadow", "another answer")
    finally:
        database.dispose()
