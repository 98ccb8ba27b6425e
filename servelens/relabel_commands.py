"""``servelens relabel …``: label schemas, agreement, exports, other labeling tools."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from servelens.config_option import config_option
from servelens.interchange_commands import import_, tasks
from servelens.relabel_export_command import export


@click.group()
def relabel() -> None:
    """Relabeling: what annotators are asked, how far they agree, and the labels as training data."""


relabel.add_command(export)
relabel.add_command(tasks)
relabel.add_command(import_)


@relabel.command()
@config_option
@click.option("--endpoint", required=True, help="Name of the endpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def agreement(config: Path, endpoint: str, as_json: bool) -> None:
    """Show how far the people agree who label: per field, per pair of people, per person."""
    from servelens.processes.relabel_agreement import run

    sys.exit(run(config, endpoint, as_json=as_json))
