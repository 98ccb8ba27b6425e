"""Rate limits over real processes that share a machine: right within 5 %, killed workers included."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORKERS = 4


class Workers:
    """Processes that ask as fast as they can; :meth:`outcomes` gives what each was granted."""

    def __init__(self, folders: Sequence[Path], *arguments: object) -> None:
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.unit.serving_proxy.limited_process"),
                    *map(str, (folder, f"proxy-{number}", *arguments)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, folder in enumerate(folders)
        ]
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def outcomes(self) -> list[dict[str, Any]]:
        outcomes = [json.loads(process.communicate(timeout=60)[0] or "{}") for process in self.processes]
        assert all(process.returncode == 0 for process in self.processes)
        return outcomes

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def hammered(folders: Sequence[Path], *arguments: object) -> list[dict[str, Any]]:
    """All of them at once, to their end."""
    workers = Workers(folders, *arguments)
    try:
        workers.begin()
        return workers.outcomes()
    finally:
        workers.stop()


def granted(outcomes: Sequence[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update({user: len(times) for user, times in outcome["times"].items()})
    return total


def most_within(times: Sequence[int], width_us: int) -> int:
    """The largest number of ``times`` in any stretch of ``width_us``."""
    ordered, begin, most = sorted(times), 0, 0
    for end, time in enumerate(ordered):
        while time - ordered[begin] >= width_us:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def test_a_limit_for_all(tmp_path: Path) -> None:
    outcomes = hammered([tmp_path] * WORKERS, 2_000, 60, 2.5, 0)
    total = granted(outcomes)["None"]
    assert 2_000 * 0.95 <= total <= 2_000 * 1.05, total
    assert all(outcome["refused"] > 100 for outcome in outcomes)


def test_a_limit_for_each_user(tmp_path: Path) -> None:
    total = granted(hammered([tmp_path] * WORKERS, 100, 60, 2.5, 10))
    assert len(total) == 10
    assert all(95 <= count <= 105 for count in total.values()), total


def test_a_window_that_slides_under_load(tmp_path: Path) -> None:
    limit, period_us = 400, 1_500_000
    outcomes = hammered([tmp_path] * WORKERS, limit, 1.5, 5, 0)
    times = [time for outcome in outcomes for time in outcome["times"]["None"]]
    assert most_within(times, period_us - 50_000) <= limit * 1.05
    assert len(times) >= limit * 3 * 0.95  # the windows that begin within five seconds of 1.5


def test_a_killed_worker_neither_loses_nor_frees_what_it_counted(tmp_path: Path) -> None:
    limit = 3_000
    killed = Workers([tmp_path], limit, 60, 60, 0)
    killed.begin()
    try:
        (first,) = hammered([tmp_path / "elsewhere"], 1, 60, 0.2, 0)  # that long, and some work beside it
        assert granted([first])["None"] == 1
    finally:
        killed.stop()
    # The killed one has used up the limit; others, and its successor in the same slot, get none of it.
    assert granted(hammered([tmp_path] * 2, limit, 60, 0.5, 0))["None"] <= limit * 0.05
    assert granted(hammered([tmp_path], limit * 2, 60, 1.0, 0))["None"] >= limit * 0.95
