"""``servelens relabel …``: label schemas, agreement, exports, other labeling tools."""

from __future__ import annotations

import click

from servelens.interchange_commands import import_, tasks


@click.group()
def relabel() -> None:
    """Relabeling: what annotators are asked, how far they agree, and the labels as training data."""


relabel.add_command(tasks)
relabel.add_command(import_)
