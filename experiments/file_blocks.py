"""The experiments of the settings file, applied as ``kubectl apply`` does.

A block is applied when it differs from what was applied last from the file: what a rollout, a bandit or a person
has done to an experiment since then stays until its block changes. A block that is refused takes no other along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.definition_changes import definition_digest, reconciled
from experiments.experiment import Experiment
from experiments.lifecycle_change import LifecycleChange
from experiments.models import ExperimentRow, LifecycleRow
from experiments.standing import FILE, LIVE, stored_experiment
from servelens.errors import Conflict, Invalid


def digests_of(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The digest of each block, by name."""
    return {experiment.name: definition_digest(experiment) for experiment in experiments}


def differing(session: Session, digests: Mapping[str, str]) -> set[str]:
    """Names whose block has changed since it was applied, and those of the file that have no block any more."""
    query = select(ExperimentRow.name, ExperimentRow.state, LifecycleRow.source, LifecycleRow.file_digest)
    rows = session.execute(query.outerjoin(LifecycleRow, LifecycleRow.experiment == ExperimentRow.name))
    applied: dict[str, str | None] = {}
    gone: set[str] = set()
    for name, state, source, digest in rows:
        applied[name] = digest
        is_kept = state in LIVE or digest is not None
        if (source or FILE) == FILE and is_kept and name not in digests:
            gone.add(name)
    return gone | {name for name, digest in digests.items() if applied.get(name) != digest}


def apply_blocks(
    change: LifecycleChange, experiments: Sequence[Experiment], by: str
) -> tuple[list[str], list[Conflict]]:
    """Make the database follow the file: the names of what was changed, and what was refused."""
    digests = digests_of(experiments)
    names = differing(change.session, digests)
    done: list[str] = []
    refused: list[Conflict] = []
    for name in sorted(names - digests.keys()):
        _remove(change, name, by)
        done.append(name)
    blocks = [experiment for experiment in experiments if experiment.name in names]
    # What gives units up comes before what wants more, so that a file that moves them is taken in one go.
    for wanted in sorted(blocks, key=lambda block: _grows(change, block)):
        try:
            lifecycle = _apply(change, wanted, by)
        except (Conflict, Invalid) as error:
            refused.append(Conflict(error.message, field=error.field, fix=error.fix))
            continue
        lifecycle.source, lifecycle.file_digest = FILE, digests[wanted.name]
        done.append(wanted.name)
    return sorted(done), refused


def _grows(change: LifecycleChange, wanted: Experiment) -> bool:
    row = change.session.get(ExperimentRow, wanted.name)
    return row is None or wanted.share > float(row.definition.get("share", 0.0))


def _remove(change: LifecycleChange, name: str, by: str) -> None:
    row = change.row(name)
    reason = f"It is not in {by} any more."
    is_live = row.state in LIVE
    lifecycle = change.stop(row, by, "removed", reason) if is_live else change.note(row, by)
    lifecycle.file_digest = None  # a block that comes back is a changed one


def _apply(change: LifecycleChange, wanted: Experiment, by: str) -> LifecycleRow:
    row = change.session.get(ExperimentRow, wanted.name)
    if row is None:
        return change.add(wanted, state="running", source=FILE, by=by)
    if row.state == "draft":
        return change.start(row, wanted, by)
    known = stored_experiment(row)
    if row.state == "stopped":
        if known == wanted and change.session.get(LifecycleRow, wanted.name) is None:
            return change.note(row, by)  # an older release did not note what it had applied
        raise Conflict(
            f"experiment '{wanted.name}' has stopped, and a stopped experiment is never started again.",
            field=f"experiments[{wanted.name}].name",
            fix="Give the block a new name, or put it back as it was.",
        )
    to = reconciled(known, wanted, change.phases(wanted.name))
    return change.note(row, by) if to == known else change.redefine(row, to, by)
