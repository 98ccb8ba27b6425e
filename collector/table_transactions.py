"""Application transactions of a commit, checked against the snapshot that it is committed on.

delta-rs refuses a commit when another one with the same application id came after that snapshot, so what is checked here
still holds when the commit is in.
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalake import DeltaTable

from servelens.errors import Conflict


def refuse_committed(
    handle: DeltaTable, uri: str, transactions: Mapping[str, int], after: Mapping[str, int | None]
) -> None:
    """Raise :class:`~servelens.errors.Conflict` when one of ``transactions`` is in already, or an application id of
    ``after`` is not at the version that is said there."""
    for application_id, version in transactions.items():
        committed = handle.transaction_version(application_id)
        if committed is not None and committed >= version:
            raise Conflict(
                f"{application_id} has committed {committed} already, so {version} was not added",
                field=uri,
                fix="Read transaction_version again and leave out what is in the table.",
            )
    for application_id, expected in after.items():
        committed = handle.transaction_version(application_id)
        if committed != expected:
            raise Conflict(
                f"{application_id} has committed {committed} meanwhile, so what comes after {expected} was not added",
                field=uri,
                fix="Read transaction_version again and go on from there.",
            )
