"""``servelens relabel export``: labels as training data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from servelens.config_option import config_option
from servelens.moment_option import MOMENT


@click.command("export")
@config_option
@click.option(
    "--format",
    default="openai_chat",
    show_default=True,
    help="openai_chat, trl_preference, … (docs/exports.md).",
)
@click.option("--output", type=click.Path(path_type=Path), default=None, help="The file or folder to write.")
@click.option("--endpoint", multiple=True, help="Only cases of this endpoint; may be repeated.")
@click.option("--since", type=MOMENT, default=None, help="Only records requested at this time or later.")
@click.option("--until", type=MOMENT, default=None, help="Only records requested before this time.")
@click.option("--rating", default=None, help="Only labels with this rating: good or bad.")
@click.option("--tag", multiple=True, help="Only labels with this tag; may be repeated.")
@click.option(
    "--value", multiple=True, metavar="FIELD=VALUE", help="Only labels that say so; may be repeated."
)
@click.option(
    "--preferred", default=None, help="Only labels that prefer: answer, alternative, tie, or an id."
)
@click.option(
    "--min-agreement", type=float, default=None, help="Only cases where this share of labels agrees."
)
@click.option("--resolution", multiple=True, help="single, unanimous, majority or adjudicated.")
@click.option("--rule", multiple=True, help="Only cases that this rule selected; may be repeated.")
@click.option("--reason", multiple=True, help="Only cases selected by this kind of rule: score, random, …")
@click.option("--served-entity", default=None, help="Only answers of this served entity.")
@click.option("--variant", default=None, help="Only answers of this variant.")
@click.option("--as-of", type=int, default=None, help="As the decisions up to this one left the labels.")
@click.option("--split", type=float, default=None, help="Share of the cases that go to a test set: 0.1.")
@click.option("--split-seed", type=int, default=0, show_default=True, help="Another seed is another split.")
@click.option(
    "--split-by", default="unit", show_default=True, help="What stays together: unit, session or case."
)
@click.option("--dedupe", default=None, help="Leave out repetitions: exact or near.")
@click.option("--mask", multiple=True, help="Personal data to replace: EMAIL_ADDRESS, …, or all.")
@click.option(
    "--reproduce",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="MANIFEST",
    help="Make the export of a manifest again and compare; nothing else is looked at but --output.",
)
def export(config: Path, output: Path | None, reproduce: Path | None, **words: Any) -> None:
    """Write labels as training data, with a manifest beside them; or make an export again, and compare.

    With --reproduce the exit status is 1 when the files differ.
    """
    from servelens.processes import export as exports

    if reproduce is not None:
        sys.exit(exports.make_again(config, reproduce, output))
    sys.exit(exports.write(config, output, words))
