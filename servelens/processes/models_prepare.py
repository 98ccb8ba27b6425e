"""``servelens models prepare``: converts the offline models, with a progress bar."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from evaluators.preparation.prepare import models_ready, prepare_models

DEFAULT_MODELS_DIR = Path("~/.cache/servelens/models")


def run(directory: Path | None, console: Console | None = None) -> int:
    """Prepare what is missing in ``directory``; does nothing when all is there."""
    folder = (directory or DEFAULT_MODELS_DIR).expanduser().resolve()
    console = console or Console(stderr=True)
    if models_ready(folder):
        console.print(f"Models are ready in {folder}", highlight=False)
        return 0
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, fraction: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=1.0)
            bar.update(tasks[name], completed=fraction)

        prepare_models(folder, show)
    console.print(f"Models are ready in {folder}", highlight=False)
    return 0
