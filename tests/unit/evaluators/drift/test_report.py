from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from evaluators.drift.report import ReportWriter
from evaluators.drift.window_data import read_window
from evaluators.drift.windows import Granularity, Window
from servelens.errors import Invalid
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows, score_rows

HOUR = Granularity.parse("1 hour")
CURRENT = HOUR.containing(datetime(2026, 3, 4, 11, 30, tzinfo=UTC))
REFERENCE = HOUR.before(CURRENT)


def frames(tmp_path: Path, rows: int = 60, **columns: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    tables = endpoint_tables(tmp_path)
    generator = np.random.default_rng(4)
    for window in (CURRENT, REFERENCE):
        durations = generator.integers(10, 900, size=rows).tolist()
        payload = payload_rows(rows, window.start, **({"execution_duration_ms": durations} | columns))
        tables.payload.append(payload)
        tables.scores.append(score_rows(payload, "perplexity", generator.lognormal(size=rows).tolist()))
    return read_window(tables, CURRENT), read_window(tables, REFERENCE)


def write(
    writer: ReportWriter, current: pl.DataFrame, reference: pl.DataFrame, window: Window = CURRENT
) -> Path | None:
    return writer.write(
        current,
        reference,
        endpoint="chat",
        window=window,
        window_cmp=HOUR.before(window),
        granularity="1 hour",
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on windows of 400 rows, of which 50 are sampled, with a model named to break out of its script."""
    folder = tmp_path_factory.mktemp("report")
    windows = frames(folder, rows=400, model="</script><script>alert(1)</script>")
    path = write(ReportWriter(folder / "reports", max_rows=50), *windows)
    assert path is not None
    return path


def test_the_report_is_one_file_that_loads_nothing(page: Path) -> None:
    html = page.read_text()
    assert "score:perplexity" in html
    assert "<title>chat: 2026-03-04 11:00:00 to 2026-03-04 12:00:00 UTC" in html
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r"\b(?:src|href)\s*=|@import|https?:|<script", markup)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert html.index(policy[0]) < html.index("<script")
    assert "default-src 'none'" in policy[1]
    assert [file.name for file in page.parent.iterdir()] == [page.name]  # no part is left over


def test_a_large_window_is_sampled(page: Path) -> None:
    assert '["number of rows", "50", "50"]' in page.read_text()


def test_what_callers_wrote_cannot_become_markup(page: Path) -> None:
    html = page.read_text()
    assert "alert(1)" in html
    assert "</script><script>alert(1)" not in html
    assert "<script>alert(1)" not in html


@pytest.mark.parametrize("rows", [1, 3])
def test_windows_of_few_rows_make_a_report(tmp_path: Path, rows: int) -> None:
    assert write(ReportWriter(tmp_path / "reports"), *frames(tmp_path, rows=rows)) is not None


def test_without_a_reference_the_window_is_shown_alone(tmp_path: Path) -> None:
    current, reference = frames(tmp_path)
    path = write(ReportWriter(tmp_path / "reports"), current, reference.clear())
    assert path is not None
    assert "execution_duration_ms" in path.read_text()


def test_an_empty_window_has_no_report(tmp_path: Path) -> None:
    current, reference = frames(tmp_path)
    assert write(ReportWriter(tmp_path / "reports"), current.clear(), reference) is None
    assert not (tmp_path / "reports").exists()


def test_only_the_newest_reports_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "chat"
    folder.mkdir(parents=True)
    for age in range(3):
        (folder / f"{age}.html").touch()
        os.utime(folder / f"{age}.html", (1_000 - age, 1_000 - age))
    path = write(ReportWriter(tmp_path / "reports", keep=2), *frames(tmp_path, rows=3))
    assert path is not None
    assert {file.name for file in folder.iterdir()} == {path.name, "0.html"}


@pytest.mark.parametrize("endpoint", ["../chat", "a/b", "", ".hidden"])
def test_an_endpoint_cannot_lead_out_of_the_folder(tmp_path: Path, endpoint: str) -> None:
    current, reference = frames(tmp_path)
    with pytest.raises(Invalid, match="endpoint"):
        ReportWriter(tmp_path / "reports").write(
            current,
            reference,
            endpoint=endpoint,
            window=CURRENT,
            window_cmp=REFERENCE,
            granularity="1 hour",
        )


def test_making_a_report_opens_no_connection_and_loads_no_telemetry(tmp_path: Path) -> None:
    """In a process of its own, in which every try to connect is written down and refused."""
    frames(tmp_path)
    script = f"""
import socket
import sys
from pathlib import Path

tried = []

def refuse(*arguments, **options):
    tried.append(arguments)
    raise OSError("no network here")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = socket.getaddrinfo = refuse
from tests.unit.evaluators.drift.test_report import CURRENT, REFERENCE, endpoint_tables, read_window, write, ReportWriter
tables = endpoint_tables(Path({str(tmp_path)!r}))
frames = read_window(tables, CURRENT), read_window(tables, REFERENCE)
assert write(ReportWriter(Path({str(tmp_path)!r}) / "reports"), *frames) is not None
telemetry = [name for name in sys.modules if "telemetry" in name and "opentelemetry" not in name]
sys.stdout.write(f"{{tried}} {{telemetry}}")
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert finished.stdout == "[] []"
