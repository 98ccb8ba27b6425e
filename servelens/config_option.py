"""``--config``, which nearly every command has."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("servelens.yaml"),
    show_default=True,
    help="The settings file.",
)
