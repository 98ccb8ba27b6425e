"""``servelens relabel …``: label schemas, agreement, exports, other labeling tools."""

from __future__ import annotations

import click

from servelens.relabel_export_command import export


@click.group()
def relabel() -> None:
    """Relabeling: what annotators are asked, how far they agree, and the labels as training data."""


relabel.add_command(export)
