"""A private PostgreSQL server for tests: a cluster in a temporary folder, reached over a Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from servelens.database import Database

MISSING = "no PostgreSQL server on this machine: install it with 'apt install postgresql'"
_START_TIMEOUT_S = 60.0
_MIGRATED = "servelens_migrated"
_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30  # bytes: a cluster with a database is 64 MB, and each process of a run has one or two
# Nothing has to outlive the machine: what a process that is killed has committed is there all the same.
_UNSAFE = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


def postgresql_binaries() -> Path | None:
    """The folder of the newest ``postgres`` and ``initdb``, or ``None`` when they are not installed."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
    )
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class PostgresqlServer:
    """A running server. ``socket_dir`` is the folder of its socket."""

    def __init__(self, socket_dir: Path) -> None:
        self.socket_dir = socket_dir
        self._migrated = False

    @contextmanager
    def database_url(self) -> Iterator[str]:
        """The SQLAlchemy address of a new, empty database that goes away at the end."""
        with self._copy_of("template1") as url:
            yield url

    @contextmanager
    def migrated_database_url(self) -> Iterator[str]:
        """The same with all tables: a copy of one that the real migrations made once for this server."""
        if not self._migrated:
            self._administer(f"CREATE DATABASE {_MIGRATED}")
            database = Database(self._url(_MIGRATED))
            database.create_tables()
            database.dispose()  # what somebody is connected to cannot be copied
            self._migrated = True
        with self._copy_of(_MIGRATED) as url:
            yield url

    @contextmanager
    def _copy_of(self, template: str) -> Iterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self._url(name)
        finally:
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.socket_dir}"

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _dsn(self) -> str:
        return f"host={self.socket_dir} user=postgres dbname=postgres"

    def answers(self) -> bool:
        """Whether the server takes connections."""
        try:
            psycopg.connect(self._dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _where() -> Path | None:
    """Memory where there is enough of it: making and dropping databases costs a quarter of the system time there."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM:
        return _MEMORY
    return None


@contextmanager
def postgresql_server(binaries: Path) -> Iterator[PostgresqlServer]:
    """Start a server of its own and stop it at the end.

    PostgreSQL refuses to run as root, who therefore runs it as the user ``postgres`` that its package makes.
    """
    # Not pytest's temporary folder: its path may be too long for a socket, and closed to another user.
    folder = Path(tempfile.mkdtemp(prefix="servelens-pg-", dir=_where()))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user, user)
    try:
        data = folder / "data"
        created = subprocess.run(
            [
                binaries / "initdb",
                *("--pgdata", data, "--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            ],
            user=user,
            group=user,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert created.returncode == 0, created.stderr
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(binaries / "postgres", "-D", data, "-k", folder),
                    *("-c", "listen_addresses=", "-c", "max_connections=100"),
                    *(part for setting in _UNSAFE for part in ("-c", setting)),
                ],
                user=user,
                group=user,
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            server = PostgresqlServer(folder)
            deadline = time.monotonic() + _START_TIMEOUT_S
            while not server.answers():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # "fast" shutdown: sessions are ended, data is flushed
            process.wait(timeout=60)
    finally:
        shutil.rmtree(folder)
