"""The ``servelens`` command. Heavy parts are imported by the command that needs them, so each process stays light.

Exit status: 0, 1 when something failed, 2 when the input is wrong (one line that names it and the fix).
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import click

from servelens.alert_commands import alert
from servelens.config_option import config_option as _config
from servelens.drift_commands import drift
from servelens.errors import Invalid, Missing, ServelensError
from servelens.evaluation_commands import evaluation
from servelens.experiment_commands import experiment
from servelens.label_schema_commands import schema
from servelens.relabel_commands import relabel

_collector_config = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The settings file.  [default: servelens.yaml]",
)
_supervised = click.option("--supervised", is_flag=True, hidden=True, help="Started by `servelens up`.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("servelens"), prog_name="servelens")
def cli() -> None:
    """Observability and online evaluation for served models."""


@cli.command()
@_config
def up(config: Path) -> None:
    """Run everything on this machine: proxy, collector, scheduler and console, and the scorer where it is needed."""
    from servelens.processes.up import run

    sys.exit(run(config))


@cli.command()
@_config
@click.option("--slot", default="proxy-0", show_default=True, help="Name of this worker's spool folder.")
@_supervised
def proxy(config: Path, slot: str, supervised: bool) -> None:
    """Run one proxy worker. Several share the port when each has its own slot."""
    from servelens.processes.proxy import run

    sys.exit(run(config, slot, supervised=supervised))


@cli.group(invoke_without_command=True)
@_config
@_supervised
@click.pass_context
def collector(context: click.Context, config: Path, supervised: bool) -> None:
    """Move records from the spool into the inference tables; or see to the dead letter, with a subcommand."""
    if context.invoked_subcommand is not None:
        context.obj = config  # also `servelens collector --config F replay`
        return
    from servelens.processes.collector import run

    sys.exit(run(config, supervised=supervised))


@collector.command("replay")
@_collector_config
@click.option("--worker", default=None, help="Only records of this worker (its id, as 'verify' shows it).")
@click.option(
    "--offset", "offsets", multiple=True, type=int, help="Only this record of the worker; may be repeated."
)
@click.pass_context
def collector_replay(
    context: click.Context, config: Path | None, worker: str | None, offsets: tuple[int, ...]
) -> None:
    """Take what the dead letter holds into the tables, as far as it can be read now, exactly once."""
    from servelens.processes.replay import replay

    sys.exit(replay(config or context.obj, worker, offsets))


@collector.command("skip")
@_collector_config
@click.option("--worker", required=True, help="The worker's id, as 'verify' shows it, or its slot.")
@click.pass_context
def collector_skip(context: click.Context, config: Path | None, worker: str) -> None:
    """Let a halted spool go on: its unreadable records, as of now, go to the dead letter."""
    from servelens.processes.replay import skip

    sys.exit(skip(config or context.obj, worker))


@cli.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def verify(config: Path, as_json: bool) -> None:
    """Count every record: in the tables, the spool, the dead letter, dropped. Exit status 1 when they do not add up."""
    from servelens.processes.verify import run

    sys.exit(run(config, as_json=as_json))


@cli.command()
@_config
@_supervised
@click.option("--once", is_flag=True, help="Run every job once, now, and exit.")
def scheduler(config: Path, supervised: bool, once: bool) -> None:
    """Run evaluators, drift, experiment analysis, case selection and table maintenance on their schedules."""
    from servelens.processes.scheduler import run

    sys.exit(run(config, supervised=supervised, once=once))


@cli.command()
@_config
@_supervised
def scorer(config: Path, supervised: bool) -> None:
    """Serve scores of texts to the proxies, for the `safety` guardrail of endpoints."""
    from servelens.processes.scorer import run

    sys.exit(run(config, supervised=supervised))


@cli.command()
@_config
@_supervised
def console(config: Path, supervised: bool) -> None:
    """Serve the dashboard and its HTTP API."""
    from servelens.processes.console import run

    sys.exit(run(config, supervised=supervised))


@cli.command()
@_config
@click.option("--endpoint", default=None, help="Only cases of this endpoint.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The JSONL file to write.",
)
def export(config: Path, endpoint: str | None, output: Path) -> None:
    """Write labeled cases as OpenAI chat fine-tuning data (JSONL)."""
    from servelens.processes.export import run

    sys.exit(run(config, endpoint, output))


@cli.command()
@_config
@click.option("--unit", required=True, help="The person, as `unit` in the inference table has them.")
@click.option("--endpoint", default=None, help="Only in this endpoint's tables.")
@click.option(
    "--now",
    is_flag=True,
    help="Delete the bytes at once. Readers of older versions of the tables fail and begin anew.",
)
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to wait for the collector when records are still in the spool.",
)
def forget(config: Path, unit: str, endpoint: str | None, now: bool, wait_s: float) -> None:
    """Delete everything that is kept of one person: records, scores, embeddings, feedback, cases and labels."""
    from servelens.processes.forget import run

    sys.exit(run(config, unit, endpoint, now=now, wait_s=wait_s))


cli.add_command(experiment)
cli.add_command(drift)
cli.add_command(evaluation)
cli.add_command(alert)
cli.add_command(relabel)
relabel.add_command(schema)


@cli.group()
def keys() -> None:
    """API keys: who may call endpoints (invoke), change what is served (admin) or use the console (annotate)."""


@keys.command("create")
@_config
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["invoke", "admin", "annotate"]),
    help="What the key may do; give it once for each scope.",
)
@click.option("--expires-days", type=click.IntRange(1, 36_500), help="Days until it stops to work.")
def keys_create(config: Path, name: str, scopes: tuple[str, ...], expires_days: int | None) -> None:
    """Create the key NAME and print its secret, once. From the first key on every call needs one."""
    from servelens.processes.keys import create

    sys.exit(create(config, name, scopes, expires_days))


@keys.command("list")
@_config
@click.option("--all", "with_dead", is_flag=True, help="Also those that are revoked or have expired.")
def keys_list(config: Path, with_dead: bool) -> None:
    """List the keys, the newest first."""
    from servelens.processes.keys import show

    sys.exit(show(config, with_dead=with_dead))


@keys.command("revoke")
@_config
@click.argument("name_or_id")
def keys_revoke(config: Path, name_or_id: str) -> None:
    """End the key NAME_OR_ID on every worker, within a second."""
    from servelens.processes.keys import revoke

    sys.exit(revoke(config, name_or_id))


@cli.group()
def models() -> None:
    """The models that work offline."""


@models.command("prepare")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    envvar="SERVELENS_MODELS_DIR",
    help="Where to put them.  [default: ~/.cache/servelens/models]",
)
def models_prepare(directory: Path | None) -> None:
    """Convert the offline models, once: SmolLM2, toxicity and MiniLM."""
    from servelens.processes.models_prepare import run

    sys.exit(run(directory))


@cli.command()
@click.option("--once", is_flag=True, help="Exit after the summary instead of staying up.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("servelens-demo"),
    show_default=True,
    help="Where the demo keeps its data.",
)
def demo(once: bool, directory: Path) -> None:
    """The whole loop on a real model: answer, record, compare, score, relabel, export, show."""
    from servelens.demo.run import run

    sys.exit(run(directory, once=once))


def main() -> None:
    """Entry point of the command: errors on purpose become one line, never a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as ending:
        sys.exit(ending.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ServelensError as error:
        click.echo(f"servelens: {error}", err=True)
        sys.exit(2 if isinstance(error, Invalid | Missing) else 1)
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:
            raise
        click.echo(
            f"servelens: the package '{error.name}' is not installed. Run: pip install 'servelens[{extra}]'",
            err=True,
        )
        sys.exit(2)


def _extra_of(module: str) -> str | None:
    extras = {
        "proxy": ("fastapi", "httptools", "uvicorn", "uvloop"),
        "redis": ("limits", "redis"),
        "collector": ("deltalake", "polars", "pyarrow"),
        "evaluators": (
            "apscheduler",
            "evidently",
            "httpx",
            "numpy",
            "pandas",
            "safetensors",
            "scipy",
            "sklearn",
            "threadpoolctl",
            "torch",
            "transformers",
        ),
        "console": ("dash", "dash_ag_grid", "dash_mantine_components", "plotly"),
        "models": ("gguf", "h5py"),
        "demo": ("openai",),
    }
    root = module.partition(".")[0]
    return next((extra for extra, modules in extras.items() if root in modules), None)
