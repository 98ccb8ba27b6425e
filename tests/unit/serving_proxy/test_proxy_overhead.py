"""The benchmark says in one line what it lacks, and counts CPU time of children too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.instant_backend import chat_body
from benchmarks.measuring import cpu_seconds


def test_a_missing_program_is_one_line_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.proxy_overhead"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr == "error: nginx is not installed (Debian package 'nginx')\n"


def test_cpu_time_counts_children() -> None:
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert cpu_seconds(os.getpid()) > before


def test_the_request_is_600_bytes() -> None:
    assert len(chat_body(stream=False)) == len(chat_body(stream=True)) == 600
