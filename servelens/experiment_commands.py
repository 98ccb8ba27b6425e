"""``servelens experiment …``: what people do with experiments on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from servelens.config_option import config_option

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
_name = click.argument("name")
_reason = click.option("--reason", required=True, help="Why; it is kept with the decision.")


@click.group()
def experiment() -> None:
    """Experiments: what runs, what it says, and what starts, changes and ends it."""


@experiment.command("list")
@config_option
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@_as_json
def list_experiments(config: Path, with_ended: bool, as_json: bool) -> None:
    """List the experiments, the newest first."""
    from servelens.processes.experiments import list_all

    sys.exit(list_all(config, with_ended=with_ended, as_json=as_json))


@experiment.command()
@config_option
@_name
@_as_json
def show(config: Path, name: str, as_json: bool) -> None:
    """Show the experiment NAME: its variants, where it stands, and its newest verdict."""
    from servelens.processes.experiments import show

    sys.exit(show(config, name, as_json=as_json))


@experiment.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--draft", is_flag=True, help="Do not start it yet.")
@_as_json
def create(config: Path, file: Path, draft: bool, as_json: bool) -> None:
    """Start the experiment that FILE describes: one block, as under 'experiments' in the settings file."""
    from servelens.processes.experiments import create

    sys.exit(create(config, file, draft=draft, as_json=as_json))


@experiment.command()
@config_option
@_name
@_as_json
def start(config: Path, name: str, as_json: bool) -> None:
    """Start the draft NAME."""
    from servelens.processes.experiments import start

    sys.exit(start(config, name, as_json=as_json))


@experiment.command()
@config_option
@_name
@_as_json
def pause(config: Path, name: str, as_json: bool) -> None:
    """Hold the decisions of a rollout or a bandit; the traffic stays as it is."""
    from servelens.processes.experiments import pause

    sys.exit(pause(config, name, as_json=as_json))


@experiment.command()
@config_option
@_name
@_as_json
def resume(config: Path, name: str, as_json: bool) -> None:
    """Go on after a pause."""
    from servelens.processes.experiments import resume

    sys.exit(resume(config, name, as_json=as_json))


@experiment.command()
@config_option
@_name
@click.option("--reason", default=None, help="Why.")
@_as_json
def stop(config: Path, name: str, reason: str | None, as_json: bool) -> None:
    """End the experiment NAME for good; all traffic follows the routes."""
    from servelens.processes.experiments import stop

    sys.exit(stop(config, name, reason, as_json=as_json))


@experiment.command()
@config_option
@_name
@_reason
@_as_json
def promote(config: Path, name: str, reason: str, as_json: bool) -> None:
    """End the experiment NAME for its treatment, which gets the control's route."""
    from servelens.processes.experiments import promote

    sys.exit(promote(config, name, reason, as_json=as_json))


@experiment.command()
@config_option
@_name
@_reason
@_as_json
def abort(config: Path, name: str, reason: str, as_json: bool) -> None:
    """End the experiment NAME for its control."""
    from servelens.processes.experiments import abort

    sys.exit(abort(config, name, reason, as_json=as_json))


@experiment.command()
@config_option
@_name
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@_as_json
def decisions(config: Path, name: str, limit: int, as_json: bool) -> None:
    """List what was decided about the experiment NAME, by whom and why, the newest first."""
    from servelens.processes.experiments import decisions

    sys.exit(decisions(config, name, limit, as_json=as_json))


@experiment.command()
@config_option
@click.argument("experiment", metavar="NAME|FILE")
@click.option("--effect", default=0.05, show_default=True, help="Relative change to find, 0.05 for 5 %.")
@click.option("--power", default=0.8, show_default=True, help="Probability to find it.")
@click.option("--days", default=7.0, show_default=True, help="Days of recent traffic to plan from.")
@click.option(
    "--run-days", type=float, default=None, help="Say what so many days find, instead of the planned units."
)
@_as_json
def plan(
    config: Path,
    experiment: str,
    effect: float,
    power: float,
    days: float,
    run_days: float | None,
    as_json: bool,
) -> None:
    """Say how many units and days the experiment NAME, or the one in the YAML FILE, needs."""
    from servelens.processes.experiment_plan import run

    sys.exit(
        run(config, experiment, effect=effect, power=power, days=days, run_days=run_days, as_json=as_json)
    )


@experiment.command()
@config_option
@_name
@click.option(
    "--looks", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many, the newest first."
)
@_as_json
def replay(config: Path, name: str, looks: int, as_json: bool) -> None:
    """Compute kept reports of the experiment NAME again from the table versions that they name, and take its decisions again.
    Exit status 1 when one comes out differently or cannot be computed any more.
    """
    from servelens.processes.experiment_replay import run

    sys.exit(run(config, name, looks=looks, as_json=as_json))


@experiment.command()
@config_option
@_name
def report(config: Path, name: str) -> None:
    """Analyse the experiment NAME now and print its report as JSON."""
    from servelens.processes.experiment_report import run

    sys.exit(run(config, name))
