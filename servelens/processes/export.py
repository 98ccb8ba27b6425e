"""``servelens export``: labeled cases as fine-tuning data, in a file."""

from __future__ import annotations

import sys
from pathlib import Path

from relabel.export.openai_chat_export import export_openai_chat
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.clock import SystemClock
from servelens.errors import Missing
from servelens.settings_file import load_settings


def run(config: Path, endpoint: str | None, output: Path) -> int:
    """Write the file, whole or not at all, and say what is in it and what was left out."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        _, endpoints = open_endpoint_store(settings, database, SystemClock()).state(deleted=True)
        known = [each.name for each in endpoints]
        if endpoint is not None and endpoint not in known:
            raise Missing(f"there is no endpoint '{endpoint}'.", fix=f"Use one of: {', '.join(known)}.")
        summary = export_openai_chat(database, output, endpoint=endpoint)
    finally:
        database.dispose()
    left_out = ", ".join(f"{count} {reason}" for reason, count in summary.left_out.items())
    sys.stdout.write(
        f"{summary.written} conversations in {output}"
        + (f" (left out: {left_out})" if left_out else "")
        + "\n"
    )
    return 0
