"""``servelens relabel tasks`` and ``servelens relabel import``: Label Studio and Argilla."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from servelens.config_option import config_option

_tool = click.option(
    "--tool", type=click.Choice(["label_studio", "argilla"]), required=True, help="The other labeling tool."
)
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@config_option
@_tool
@click.option("--endpoint", required=True, help="Name of the endpoint.")
@click.option("--output", type=_file, required=True, help="The JSON file of tasks to write.")
@click.option(
    "--config-output",
    type=_file,
    default=None,
    help="Where to write what the tool has to be told once: XML for Label Studio, JSON for Argilla.",
)
@click.option(
    "--state",
    type=click.Choice(["open", "claimed"]),
    default="open",
    show_default=True,
    help="Which cases.",
)
@click.option("--limit", type=click.IntRange(1), default=None, help="At most so many, the most urgent.")
def tasks(
    config: Path,
    tool: str,
    endpoint: str,
    output: Path,
    config_output: Path | None,
    state: str,
    limit: int | None,
) -> None:
    """Write cases as tasks for another labeling tool, with what the scores suggest."""
    from servelens.processes.interchange import write_tasks

    sys.exit(
        write_tasks(
            config, tool, endpoint, output=output, config_output=config_output, state=state, limit=limit
        )
    )


@click.command("import")
@config_option
@_tool
@click.option("--endpoint", default=None, help="Refuse annotations of cases of other endpoints.")
@click.option(
    "--annotator",
    "annotators",
    metavar="USER=NAME",
    multiple=True,
    help="Who a user of the tool is here: 3=ann@example.com. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Say what would become of the annotations, and change nothing.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def import_(
    config: Path,
    tool: str,
    endpoint: str | None,
    annotators: tuple[str, ...],
    dry_run: bool,
    file: Path,
) -> None:
    """Take the annotations in FILE, the tool's JSON export, in as labels. The same file again changes nothing."""
    from servelens.processes.interchange import import_annotations

    sys.exit(
        import_annotations(config, tool, file, endpoint=endpoint, annotators=annotators, dry_run=dry_run)
    )
