"""``servelens keys``: create, list and revoke API keys in the database of the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from servelens.assembly.database import build_database
from servelens.clock import SystemClock
from servelens.keys.store import KeyStore
from servelens.processes.person import user
from servelens.settings_file import load_settings


def create(config: Path, name: str, scopes: Sequence[str], expires_days: int | None) -> int:
    """Print the secret alone on standard output, so that a script can take it, and the rest beside it."""
    lifetime = None if expires_days is None else timedelta(days=expires_days)
    with _store(config) as store:
        is_first = not store.generation().created
        key, secret = store.create(name, scopes, created_by=user(), lifetime=lifetime)
    said = Console(stderr=True, highlight=False, soft_wrap=True)
    until = "until it is revoked" if key.expires_at is None else f"until {_time(key.expires_at)}"
    said.print(f"Key {key.name!r} ({key.id}) may {', '.join(key.scopes)}, {until}.", markup=False)
    if is_first:
        said.print("It is the first key: from now on every call needs one.", markup=False)
    said.print("This is shown once; send it as 'Authorization: Bearer …':", markup=False)
    sys.stderr.flush()
    sys.stdout.write(f"{secret}\n")
    return 0


def show(config: Path, *, with_dead: bool) -> int:
    """A table on standard output."""
    now = SystemClock().now()
    with _store(config) as store:
        keys = [key for key in store.all() if with_dead or key.state(now) == "live"]
    table = Table("id", "name", "begins", "scopes", "created", "by", "expires", "state")
    for key in keys:
        expires = "never" if key.expires_at is None else _time(key.expires_at)
        values = (key.id, key.name, f"{key.prefix}…", ", ".join(key.scopes), _time(key.created_at))
        table.add_row(*values, key.created_by or "", expires, key.state(now))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a pipe has no width that columns would have to be cut to
        console.width = 500
    console.print(table)
    return 0


def revoke(config: Path, name_or_id: str) -> int:
    """Say which key it was."""
    with _store(config) as store:
        key = store.revoke(name_or_id)
    Console(highlight=False, markup=False, soft_wrap=True).print(f"Key {key.name!r} ({key.id}) is revoked.")
    return 0


@contextmanager
def _store(config: Path) -> Iterator[KeyStore]:
    database = build_database(load_settings(config))
    try:
        database.create_tables()
        yield KeyStore(database, SystemClock())
    finally:
        database.dispose()


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
