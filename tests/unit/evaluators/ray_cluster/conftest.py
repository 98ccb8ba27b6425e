"""One cluster of two nodes for each file of tests, in a folder whose name is short (sockets have 107 characters)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.unit.evaluators.ray_cluster import travelling

REPOSITORY = Path(__file__).parents[4]


@dataclass(frozen=True, slots=True)
class TwoNodes:
    """``address``: of the head. ``site``: the folder that the evaluator is installed in, for the path of processes here."""

    address: str
    site: Path
    commands: IO[str]
    answers: IO[str]

    def lose(self) -> None:
        """Kill the second node, and all that runs on it."""
        self._do("lose")

    def add(self) -> None:
        """Add the second node again."""
        self._do("add")

    def _do(self, command: str) -> None:
        self.commands.write(command + "\n")
        self.commands.flush()
        assert self.answers.readline() == "done\n"


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    folder = Path(tempfile.mkdtemp(prefix="sl-ray-"))
    site = folder / "site"
    travelling.install(site)
    (folder / "ray").mkdir()
    path = os.pathsep.join([str(site), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("cluster_process.py")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            address = process.stdout.readline().strip()
            assert address, "the cluster did not start"
            before = list(sys.path)
            sys.path.insert(0, str(site))
            yield TwoNodes(address, site, process.stdin, process.stdout)
            sys.path[:] = before
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            shutil.rmtree(folder, ignore_errors=True)
