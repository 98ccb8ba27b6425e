"""``servelens drift …``: which columns drifted, and a report of two windows."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from servelens.config_option import config_option

_endpoint = click.option("--endpoint", required=True, help="Name of the endpoint.")


@click.group()
def drift() -> None:
    """Drift: what changed in the traffic of an endpoint, and what it looks like."""


@drift.command()
@config_option
@_endpoint
@click.option("--granularity", default=None, help="Length of the windows, when there are several: 1 hour.")
@click.option(
    "--last", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many windows, the newest."
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of a false alarm.")
@click.option("--drifted", "only_drifted", is_flag=True, help="Only columns that drifted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def show(
    config: Path,
    endpoint: str,
    granularity: str | None,
    last: int,
    alpha: float,
    only_drifted: bool,
    as_json: bool,
) -> None:
    """Show the verdict on every column of the last windows: significance, corrected for all that is shown, and effect."""
    from servelens.processes.drift import show

    sys.exit(
        show(
            config,
            endpoint,
            granularity,
            last=last,
            alpha=alpha,
            only_drifted=only_drifted,
            as_json=as_json,
        )
    )


@drift.command()
@config_option
@_endpoint
@click.option("--window", required=True, metavar="START/END", help="2026-03-04T10:00Z/2026-03-04T11:00Z.")
@click.option("--against", required=True, metavar="START/END", help="What it is compared with.")
@click.option("--slice", "part", default=None, metavar="KEY=VALUE", help="Only these: variant=challenger.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The HTML file to write.  [default: where the dashboard lists it]",
)
def report(
    config: Path, endpoint: str, window: str, against: str, part: str | None, output: Path | None
) -> None:
    """Write Evidently's report of two windows, on a sample of each, and print where it is."""
    from servelens.processes.drift import report

    sys.exit(report(config, endpoint, window, against, part, output))
