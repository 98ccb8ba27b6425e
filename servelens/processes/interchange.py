"""``servelens relabel tasks`` and ``servelens relabel import``: cases to other labeling tools, and their annotations back."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from relabel.case import CaseState
from relabel.interchange.importer import Importer, ImportReport, Outcome
from relabel.interchange.json_array import read_objects
from relabel.interchange.named_annotators import named_annotators
from relabel.interchange.task_array import task_array
from relabel.interchange.task_case import task_cases
from relabel.interchange.tools import TOOLS, ToolName
from relabel.label_schema import Schemas
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.label_schemas import open_schema_store
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Invalid, Missing
from servelens.settings_file import load_settings

_CHUNK: Final = 1024 * 1024


def write_tasks(
    config: Path,
    tool: str,
    endpoint: str,
    *,
    output: Path,
    config_output: Path | None,
    state: str,
    limit: int | None,
) -> int:
    """Write the files, each whole or not at all, and say what to do with them."""
    chosen = TOOLS[ToolName(tool)]
    with _open(config, endpoint) as (database, schemas):
        schema = schemas.current(endpoint)
        told = chosen.config(
            schema
        )  # even when it is not asked for: tasks for which there is none are of no use
        counted = _Counted(
            task_array(chosen, task_cases(database, endpoint, state=CaseState(state), limit=limit), schema)
        )
        _write(output, counted)
    if config_output is not None:
        _write(config_output, [told.encode()])
    sys.stdout.write(f"{counted.tasks} tasks in {output}\n")
    return 0


def import_annotations(
    config: Path,
    tool: str,
    file: Path,
    *,
    endpoint: str | None,
    annotators: Sequence[str],
    dry_run: bool,
) -> int:
    """Say what became of the annotations; 1 when some could not be read or fit no schema."""
    names = named_annotators(annotators)
    with _open(config, endpoint) as (database, schemas):
        importer = Importer(
            database, SystemClock(), schemas, TOOLS[ToolName(tool)], endpoint=endpoint, annotators=names
        )
        report = importer.run(read_objects(_chunks(file)), dry_run=dry_run)
    _print(report)
    return 1 if report.outcomes.keys() & {Outcome.UNREADABLE, Outcome.REFUSED} else 0


@contextmanager
def _open(config: Path, endpoint: str | None) -> Iterator[tuple[Database, Schemas]]:
    settings = load_settings(config)
    database = build_database(settings)
    try:
        _, endpoints = open_endpoint_store(settings, database, SystemClock()).state(deleted=True)
        known = [each.name for each in endpoints]
        if endpoint is not None and endpoint not in known:
            raise Missing(f"there is no endpoint '{endpoint}'.", fix=f"Use one of: {', '.join(known)}.")
        yield database, open_schema_store(settings, database, SystemClock())
    finally:
        database.dispose()


class _Counted:
    """Chunks of :func:`~relabel.interchange.task_array.task_array`, and how many tasks they held."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.tasks = -1  # the end is a chunk as well

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.tasks += 1
            yield chunk


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "wb", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            for chunk in chunks:
                file.write(chunk)
        temporary.replace(path)
    except OSError as error:
        raise Invalid(
            f"it cannot be written: {error.strerror}", field=str(path), fix="Choose another place."
        ) from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise Invalid(
            f"it cannot be read: {error.strerror}", field=str(path), fix="Choose another file."
        ) from error


def _print(report: ImportReport) -> None:
    said = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items()) or "no annotations"
    sys.stdout.write(f"{said}{' (dry run: nothing was changed)' if report.dry_run else ''}\n")
    for problem in report.problems:
        who = f" by {problem.annotator}" if problem.annotator else ""
        which = f" {problem.external_id}" if problem.external_id else ""
        sys.stderr.write(f"[{problem.element}]{which}{who}: {problem.outcome}: {problem.message}\n")
    if report.more_problems:
        sys.stderr.write(f"… and {report.more_problems} more\n")
