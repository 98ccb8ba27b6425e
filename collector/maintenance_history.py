"""A table's past is cut off: old log entries, checkpoints, and files that only older versions need.

Invariant: what the newest version holds stays, its application transactions included, and so does everything that is
younger than ``hours``. A reader that follows the table by version and stayed away for longer must read it anew;
:class:`~servelens.errors.Missing` tells it so.

Files that were replaced are named in each checkpoint until they may go. At a commit a second these would be hundreds of
thousands, in every checkpoint; so they are named for an hour only, and go by their own age after that.
"""

from __future__ import annotations

import logging
from typing import Final

from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from collector.deletion import NO_HOOKS
from collector.table import Table

logger = logging.getLogger(__name__)

_NAMED_H: Final = 1
_CHANGES: Final = "_change_data/"


def keep_history(handle: DeltaTable, hours: int) -> bool:
    """Let the table's log reach ``hours`` back, from the next clean-up on; whether that is news to it.

    A commit of the table's settings makes an append that is under way begin again.
    """
    wanted = {
        "delta.logRetentionDuration": f"interval {hours} hours",
        "delta.deletedFileRetentionDuration": f"interval {_NAMED_H} hours",
    }
    present = handle.metadata().configuration
    if all(present.get(name) == value for name, value in wanted.items()):
        return False
    handle.alter.set_table_properties(wanted, post_commithook_properties=NO_HOOKS)
    return True


def clean_log(table: Table, hours: int) -> None:
    """Make a checkpoint, and delete log entries and checkpoints that are older than ``hours`` and not needed."""
    with table.upkeep() as handle:
        if handle is None:
            return
        if keep_history(handle, hours):
            handle.update_incremental()
        handle.create_checkpoint()
        handle.cleanup_metadata()


def vacuum(table: Table, hours: int) -> int:
    """Delete files that the newest version does not need and that are older than ``hours`` (at least one, for a file
    that is just being written is needed by no version yet); how many.
    """
    hours = max(hours, _NAMED_H)
    with table.upkeep() as handle:
        if handle is None or not _vacuum(handle, hours, full=True, dry_run=True):
            return 0  # without a commit
        return len(_vacuum(handle, hours, full=True, dry_run=False))


def purge(table: Table) -> int:
    """Delete at once whatever rows that were deleted are still in; how many files. Readers of older versions fail."""
    purged = vacuum(table, _NAMED_H)
    with table.upkeep() as handle:
        if handle is None:
            return purged
        # Only what the log names as replaced, for a file that it does not name may be one that is just being written.
        if _vacuum(handle, 0, full=False, dry_run=True):
            purged += len(_vacuum(handle, 0, full=False, dry_run=False))
        unneeded = _vacuum(handle, 0, full=True, dry_run=True)
        storage = DeltaStorageHandler.from_table(handle._table)
        for path in unneeded:
            if path.startswith(_CHANGES):
                storage.delete_file(path)
                purged += 1
    return purged


def _vacuum(handle: DeltaTable, hours: int, *, full: bool, dry_run: bool) -> list[str]:
    return handle.vacuum(
        retention_hours=hours,
        dry_run=dry_run,
        enforce_retention_duration=False,
        full=full,
        post_commithook_properties=NO_HOOKS,
    )
