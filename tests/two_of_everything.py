"""Two proxies and two collectors on one machine, with PostgreSQL and an S3 API server: each record exactly once.

``python -m tests.two_of_everything --records 100000`` sends that many calls, waits until the table has them, stops
everything, and prints the books; exit status 1 when they do not add up.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from collector.table import Table
from servelens.assembly.tables import build_catalog
from servelens.settings_file import load_settings
from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import free_port, post_json, wait_until
from tests.postgresql import MISSING, postgresql_binaries, postgresql_server
from tests.s3_server import BUCKET, S3Server, s3_server

MACHINES = ("one", "two")
SENDERS = 4  # for each proxy
START_S = 60.0
STOP_S = 150.0


@dataclasses.dataclass(frozen=True)
class Books:
    """What was answered, and what the table says. ``seconds_to_readable`` counts from the last answer."""

    answered: int
    rows: int
    missing: int
    doubled: int
    unexpected: int
    workers: int
    commits: int
    lost_races: int
    exit_statuses: Sequence[int]
    seconds_sending: float
    seconds_to_readable: float

    @property
    def add_up(self) -> bool:
        """Whether each answered call is one row and there is no other."""
        clean = not any(self.exit_statuses) and self.workers == len(MACHINES)
        return clean and self.rows == self.answered and not (self.missing or self.doubled or self.unexpected)


class Machine:
    """A proxy and a collector with a spool of their own, as ``servelens proxy`` and ``servelens collector``."""

    def __init__(self, folder: Path, shared: Mapping[str, Any]) -> None:
        self.port, collector_port = free_port(), free_port()
        self.folder = folder
        folder.mkdir(parents=True)
        self.config = folder / "servelens.yaml"
        settings = {
            "data_dir": "data",
            **shared,
            "proxy": {"port": self.port},
            "collector": {"port": collector_port, **shared.get("collector", {})},
        }
        self.config.write_text(yaml.safe_dump(settings))
        self._addresses = (self.port, collector_port)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both; they become ready in their own time."""
        for command in ("collector", "proxy"):
            with (self.folder / f"{command}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "servelens", command, "--config", str(self.config)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=dict(os.environ, S3_SECRET="test-secret-key"),
                    )
                )

    def wait_until_ready(self) -> None:
        """Both answer that they are."""

        def ready(port: int) -> bool:
            assert all(process.poll() is None for process in self._processes), self.said()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        for port in self._addresses:
            wait_until(lambda port=port: ready(port), START_S, f"{self.folder.name} is ready")  # type: ignore[misc]

    def stop(self) -> list[int]:
        """The proxy first, then the collector, which drains the spool; their exit statuses."""
        statuses = []
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            statuses.append(process.wait(STOP_S))
        return statuses

    def kill(self) -> None:
        """For whatever is left."""
        for process in self._processes:
            process.kill()
            process.wait()

    def said(self) -> str:
        """The end of both logs."""
        return "\n".join(path.read_text()[-2_000:] for path in sorted(self.folder.glob("*.log")))


class Load:
    """Threads that make ``calls`` calls of one proxy, and the ids of the answers."""

    def __init__(self, port: int, calls: int) -> None:
        self._port = port
        self._shares = [calls // SENDERS + (number < calls % SENDERS) for number in range(SENDERS)]
        self.answered: list[str] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._send, args=(share,)) for share in self._shares]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self, calls: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            for number in range(calls):
                body = {"model": "chat", "messages": [{"role": "user", "content": f"call {number}"}]}
                status, request_id, content = post_json(connection, "/v1/chat/completions", body)
                if status == 200 and request_id:
                    self.answered.append(request_id)
                else:
                    self.errors.append(f"{status}: {content[:200]!r}")
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()


@contextlib.contextmanager
def two_of_everything(folder: Path, **collector: Any) -> Iterator[tuple[list[Machine], S3Server]]:
    """Both machines, started, on one database and one object storage."""
    binaries = postgresql_binaries()
    assert binaries is not None, MISSING
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(s3_server())
        url = stack.enter_context(stack.enter_context(postgresql_server(binaries)).database_url())
        backend = stack.enter_context(backend_process())
        shared = {
            "database": {"url": url},
            "tables": {
                "root": f"s3://{BUCKET}/lake",
                "storage_options": {
                    **server.storage_options,
                    "aws_secret_access_key": "${S3_SECRET:-test-secret-key}",
                },
            },
            "endpoints": [endpoint("chat", backend)],
            "collector": collector,
        }
        machines = [Machine(folder / name, shared) for name in MACHINES]
        for machine in machines:
            stack.callback(machine.kill)
            machine.start()
        for machine in machines:
            machine.wait_until_ready()
        yield machines, server


def keep_books(folder: Path, records: int, **collector: Any) -> Books:
    """Send ``records`` calls, half of them to each proxy, and compare answers with rows."""
    with two_of_everything(folder, **collector) as (machines, server):
        loads = [Load(machine.port, records // len(MACHINES)) for machine in machines]
        started = time.monotonic()
        for load in loads:
            load.start()
        for load in loads:
            load.join()
        sent = time.monotonic()
        errors = [error for load in loads for error in load.errors]
        assert not errors, errors[:3]
        answered = [request_id for load in loads for request_id in load.answered]
        table = _table(machines[0])
        wait_until(lambda: _ids(table).total() >= len(answered), 120, "all records are readable")
        readable = time.monotonic()
        statuses = [status for machine in machines for status in machine.stop()]
        if any(statuses):
            sys.stderr.write("\n".join(machine.said() for machine in machines))
        found = _ids(table)
        expected = set(answered)
        return Books(
            answered=len(answered),
            rows=found.total(),
            missing=len(expected - found.keys()),
            doubled=sum(count - 1 for count in found.values()),
            unexpected=len(found.keys() - expected),
            workers=table.scan().select("worker_id").unique().collect().height,
            commits=table.version() or 0,
            lost_races=server.counts()["refused"],
            exit_statuses=statuses,
            seconds_sending=round(sent - started, 1),
            seconds_to_readable=round(readable - sent, 1),
        )


def _table(machine: Machine) -> Table:
    return build_catalog(load_settings(machine.config)).tables("chat").payload


def _ids(table: Table) -> Counter[str]:
    return Counter(table.scan().select("databricks_request_id").collect().to_series().to_list())


def main() -> None:
    """Print the books as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="servelens-two-") as folder:
        books = keep_books(Path(folder), arguments.records)
    sys.stdout.write(json.dumps({**dataclasses.asdict(books), "add_up": books.add_up}, indent=2) + "\n")
    sys.exit(0 if books.add_up else 1)


if __name__ == "__main__":
    main()
