"""Makes an export again from its manifest and says what is different.

Only what has changed beside the decisions can make a difference: cases of people who were forgotten, labels that were taken
back, cases that were made gold; where the query names rules or reasons, a rule that has found a case since; or another
version of the programs. Each is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from relabel.case import CaseState
from relabel.export.case_tally import case_ids, changed_blocks
from relabel.export.manifest import FORMAT_VERSION, WrittenFile, is_manifest, programs
from relabel.export.query import ExportQuery
from relabel.export.write import write_scratch
from relabel.models import CaseRow, DecisionRow
from servelens.database import Database
from servelens.errors import Invalid

_CASES_PER_READ: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is different now. ``files`` that differ, by name; cases that are ``gone``, by why, that are ``new``, and the
    blocks of ids (first, last) in which a case gives other examples; ``programs`` that have another version, with the one
    then and the one now.
    """

    files: tuple[str, ...] = ()
    gone: Mapping[str, tuple[int, ...]]
    new: tuple[int, ...] = ()
    changed: tuple[tuple[int, int], ...] = ()
    programs: Mapping[str, tuple[str, str]]

    @property
    def is_same(self) -> bool:
        """Whether the files are the same, to the byte."""
        return not self.files

    def lines(self) -> Iterator[str]:
        """The differences in words."""
        for name in self.files:
            yield f"{name} is different"
        for why, cases in self.gone.items():
            yield f"{len(cases)} cases are gone, {why}: {_some(cases)}"
        if self.new:
            yield f"{len(self.new)} cases are new: {_some(self.new)}"
        for first, last in self.changed:
            yield f"a case among {first} to {last} gives other examples"
        for name, (then, now) in self.programs.items():
            yield f"{name} was {then} and is {now}"


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a file. Raises :class:`~servelens.errors.Invalid` when it is none."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(f"it is no manifest: {error}", field=str(path), fix="Name a manifest.json.") from error
    if not is_manifest(manifest):
        raise Invalid("it is no manifest of an export", field=str(path), fix="Name a manifest.json.")
    if manifest["manifest"] != FORMAT_VERSION:
        raise Invalid(
            f"this servelens reads manifests of version {FORMAT_VERSION}", field=f"{path}: manifest"
        )
    return manifest


def reproduce(database: Database, manifest: Mapping[str, Any], folder: Path) -> Comparison:
    """Write the export of ``manifest`` into the empty ``folder`` again and compare.

    Raises :class:`~servelens.errors.Invalid` when the manifest has no query that can be made again, and what exporting
    raises.
    """
    query = ExportQuery.from_json(manifest["query"])
    if query.as_of is None:
        raise Invalid("it does not say up to which decision", field="query.as_of")
    export, files = write_scratch(database, query, folder)
    tally = export.tally.to_json()
    then, now = case_ids(manifest["cases"]), case_ids(tally)
    return Comparison(
        files=tuple(_different(manifest["files"], files)),
        gone=_why_gone(database, sorted(then - now), query.as_of),
        new=tuple(sorted(now - then)),
        changed=tuple(changed_blocks(manifest["cases"], tally)),
        programs={
            name: (str(manifest.get(name)), version)
            for name, version in programs(export).items()
            if manifest.get(name) != version
        },
    )


def _different(then: Iterable[Mapping[str, Any]], now: Iterable[WrittenFile]) -> Iterator[str]:
    before, after = list(then), list(now)
    if len(before) == len(after) == 1:  # one file has the name that it was given
        if before[0]["sha256"] != after[0].sha256:
            yield str(before[0]["name"])
        return
    old = {str(file["name"]): str(file["sha256"]) for file in before}
    new = {file.name: file.sha256 for file in after}
    yield from sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _why_gone(database: Database, cases: list[int], as_of: int) -> dict[str, tuple[int, ...]]:
    gone: dict[str, list[int]] = {}
    for first in range(0, len(cases), _CASES_PER_READ):
        some = cases[first : first + _CASES_PER_READ]
        newest = (
            select(DecisionRow.case_id, func.max(DecisionRow.id).label("id"))
            .where(DecisionRow.case_id.in_(some), DecisionRow.id <= as_of)
            .group_by(DecisionRow.case_id)
            .subquery()
        )
        decided = select(newest.c.case_id, DecisionRow.label_id).join(
            DecisionRow, DecisionRow.id == newest.c.id
        )
        with database.session(read_only=True) as session:
            kept = select(CaseRow.id, CaseRow.state).where(CaseRow.id.in_(some))
            states = dict(session.execute(kept).all())
            labels: dict[int, int | None] = dict(session.execute(decided).all())
        for case_id in some:
            if case_id not in states:
                why = "since they were forgotten"
            elif states[case_id] is CaseState.GOLD:
                why = "since they are gold now"
            elif labels.get(case_id) is None:
                why = "since their labels were taken back"
            else:
                why = "though they are still labeled"
            gone.setdefault(why, []).append(case_id)
    return {why: tuple(ids) for why, ids in gone.items()}


def _some(cases: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, cases[:20]))
    return shown + (f" and {len(cases) - 20} more" if len(cases) > 20 else "")
