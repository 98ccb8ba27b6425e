"""The SQL database, from the settings."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from servelens.database import Database
from servelens.settings import Settings


def build_database(settings: Settings) -> Database:
    """Open the database. Create its tables after importing the modules that declare them.

    A SQLite file is for its owner's eyes: it holds the keys of backends.
    """
    url = f"sqlite:///{settings.data_dir / 'servelens.db'}"
    if settings.database.url is not None:
        url = settings.database.url.get_secret_value()
    with contextlib.suppress(ArgumentError):  # said by Database
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            _keep_private(Path(str(parsed.database)))
    return Database(url)


def _keep_private(file: Path) -> None:
    with contextlib.suppress(OSError):  # no such folder, or another user's file: said when it is opened
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        file.chmod(0o600)
