"""``servelens alert …``: what people do with alerts on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from servelens.config_option import config_option

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@click.group()
def alert() -> None:
    """Alerts: where they stand, what fired, and silences."""


@alert.command("list")
@config_option
@click.option("--endpoint", default=None, help="Only alerts of this endpoint.")
@_as_json
def list_alerts(config: Path, endpoint: str | None, as_json: bool) -> None:
    """List the rules and where each slice stands. Exit status 1 when one fires."""
    from servelens.processes.alerts import list_all

    sys.exit(list_all(config, endpoint, as_json=as_json))


@alert.command()
@config_option
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many incidents."
)
@_as_json
def show(config: Path, name: str, limit: int, as_json: bool) -> None:
    """Show the incidents of the rule NAME, who was told of them and how that went."""
    from servelens.processes.alerts import show

    sys.exit(show(config, name, limit, as_json=as_json))


@alert.command()
@config_option
@click.option("--rule", default=None, help="Name of the rule; * is any text, here and below.")
@click.option("--endpoint", default=None, help="Name of the endpoint.")
@click.option("--slice", "slice_", default=None, help="Name of the variant.")
@click.option("--for", "duration", required=True, help="How long: 30m, 2h, 1d.")
@click.option("--reason", required=True, help="Why; it is kept.")
@_as_json
def silence(
    config: Path,
    rule: str | None,
    endpoint: str | None,
    slice_: str | None,
    duration: str,
    reason: str,
    as_json: bool,
) -> None:
    """Tell nobody of what matches, for some time."""
    from servelens.processes.alerts import silence

    sys.exit(silence(config, rule, endpoint, slice_, duration, reason, as_json=as_json))


@alert.command()
@config_option
@click.argument("number", type=click.IntRange(1))
@_as_json
def unsilence(config: Path, number: int, as_json: bool) -> None:
    """End the silence NUMBER now; what still fires is told of."""
    from servelens.processes.alerts import unsilence

    sys.exit(unsilence(config, number, as_json=as_json))


@alert.command()
@config_option
@click.option("--ended", is_flag=True, help="Also those that are over.")
@_as_json
def silences(config: Path, ended: bool, as_json: bool) -> None:
    """List the silences."""
    from servelens.processes.alerts import silences

    sys.exit(silences(config, with_ended=ended, as_json=as_json))


@alert.command()
@config_option
@click.argument("channel")
@_as_json
def test(config: Path, channel: str, as_json: bool) -> None:
    """Send a notification that says it is a test by the channel CHANNEL. Exit status 1 when it did not arrive."""
    from servelens.processes.alerts import test

    sys.exit(test(config, channel, as_json=as_json))
