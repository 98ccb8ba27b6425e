"""``servelens evaluation …``: what people do with evaluations on the command line."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from servelens.config_option import config_option
from servelens.moment_option import MOMENT

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
_name = click.argument("name")


@click.group()
def evaluation() -> None:
    """Evaluations: what is scored, when, what came of it, and what holds and changes it."""


@evaluation.command("list")
@config_option
@_as_json
def list_evaluations(config: Path, as_json: bool) -> None:
    """List the evaluations, each with its last run."""
    from servelens.processes.evaluations import list_all

    sys.exit(list_all(config, as_json=as_json))


@evaluation.command()
@config_option
@click.option("--name", default=None, help="Only those of this evaluation.")
@click.option("--endpoint", default=None, help="Only those on this endpoint.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@_as_json
def runs(config: Path, name: str | None, endpoint: str | None, limit: int, as_json: bool) -> None:
    """List the runs, the newest first."""
    from servelens.processes.evaluations import runs

    sys.exit(runs(config, name, endpoint, limit, as_json=as_json))


@evaluation.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_as_json
def create(config: Path, file: Path, as_json: bool) -> None:
    """Make the evaluation that FILE describes: one block, as under 'evaluations' in the settings file."""
    from servelens.processes.evaluations import create

    sys.exit(create(config, file, as_json=as_json))


@evaluation.command()
@config_option
@_name
@_as_json
def run(config: Path, name: str, as_json: bool) -> None:
    """Ask the scheduler for a run of the evaluation NAME now."""
    from servelens.processes.evaluations import request_run

    sys.exit(request_run(config, name, as_json=as_json))


@evaluation.command()
@config_option
@_name
@_as_json
def pause(config: Path, name: str, as_json: bool) -> None:
    """Start no runs of the evaluation NAME by schedule any more."""
    from servelens.processes.evaluations import pause

    sys.exit(pause(config, name, paused=True, as_json=as_json))


@evaluation.command()
@config_option
@_name
@_as_json
def resume(config: Path, name: str, as_json: bool) -> None:
    """Go on with the evaluation NAME after a pause; what has come meanwhile is scored too."""
    from servelens.processes.evaluations import pause

    sys.exit(pause(config, name, paused=False, as_json=as_json))


@evaluation.command()
@config_option
@_name
def delete(config: Path, name: str) -> None:
    """Remove the evaluation NAME. Its scores and runs stay."""
    from servelens.processes.evaluations import delete

    sys.exit(delete(config, name))


@evaluation.command()
@config_option
@click.option("--endpoint", required=True, help="Name of the endpoint.")
@click.option("--evaluator", required=True, help="Name of an evaluation of the endpoint, or of an evaluator.")
@click.option("--since", type=MOMENT, required=True, help="Begin of the period, by the time of the call.")
@click.option("--until", type=MOMENT, default=None, help="Its end, exclusive.  [default: now]")
@click.option("--rescore", is_flag=True, help="Also what this version of the evaluator has scored.")
@_as_json
def backfill(
    config: Path,
    endpoint: str,
    evaluator: str,
    since: datetime,
    until: datetime | None,
    rescore: bool,
    as_json: bool,
) -> None:
    """Score the records of a past period that this version of the evaluator has not scored, here and now. Safe beside a
    running scheduler; when it is cut off, the same command goes on.
    """
    from servelens.processes.evaluation_backfill import run

    sys.exit(run(config, endpoint, evaluator, since, until, rescore=rescore, as_json=as_json))


@evaluation.command()
@config_option
@click.option("--endpoint", required=True, help="Name of the endpoint.")
@click.option("--evaluator", required=True, help="Name of the evaluator.")
@click.option("--target", type=click.Choice(["request", "response"]), default="response", show_default=True)
@click.option(
    "--above", type=float, default=None, help="A score over this says yes.  [default: the case rule's]"
)
@click.option("--below", type=float, default=None, help="A score under this says yes.")
@click.option(
    "--positive",
    default=None,
    metavar="FIELD=VALUE",
    help="People's yes is this answer of the label schema; of scales also FIELD<=VALUE.  [default: rating=bad]",
)
@click.option("--tag", default=None, help="People's yes is this tag: short for --positive tags=TAG.")
@click.option(
    "--precision", type=click.FloatRange(0, 1), default=None, help="Suggest a threshold with this precision."
)
@_as_json
def agreement(
    config: Path,
    endpoint: str,
    evaluator: str,
    target: Literal["request", "response"],
    above: float | None,
    below: float | None,
    positive: str | None,
    tag: str | None,
    precision: float | None,
    as_json: bool,
) -> None:
    """Compare an evaluator's scores with the labels of people, and suggest a threshold."""
    from servelens.processes.evaluation_agreement import run

    sys.exit(
        run(
            config,
            endpoint,
            evaluator,
            target=target,
            above=above,
            below=below,
            positive=positive,
            tag=tag,
            precision=precision,
            as_json=as_json,
        )
    )
