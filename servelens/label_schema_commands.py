"""``servelens relabel schema …``: what annotators are asked."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from servelens.config_option import config_option

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))


@click.group()
def schema() -> None:
    """Label schemas: what annotators are asked about the cases of an endpoint."""


@schema.command()
@config_option
@click.option("--endpoint", required=True, help="Name of the endpoint.")
@click.option("--version", type=int, default=None, help="An earlier one; 0 is the default.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of YAML, with who made it and when."
)
def show(config: Path, endpoint: str, version: int | None, as_json: bool) -> None:
    """Print the schema, so that 'set' would take it."""
    from servelens.processes.label_schemas import show

    sys.exit(show(config, endpoint, version, as_json=as_json))


@schema.command(name="set")
@config_option
@_file
@click.option("--endpoint", default=None, help="Name of the endpoint.  [default: what FILE says]")
@click.option(
    "--if-version", type=int, default=None, help="Only if this is the current version: nobody is overwritten."
)
def set_schema(config: Path, file: Path, endpoint: str | None, if_version: int | None) -> None:
    """Ask what FILE (YAML or JSON) says from now on. Cases that annotators hold keep what they were asked."""
    from servelens.processes.label_schemas import set_schema

    sys.exit(set_schema(config, file, endpoint, if_version))


@schema.command()
@_file
def check(file: Path) -> None:
    """Say whether FILE (YAML or JSON) is a label schema; nothing is changed."""
    from servelens.processes.label_schemas import check

    sys.exit(check(file))
