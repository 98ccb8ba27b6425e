"""Runs the demo: model server, ``servelens up``, 60-odd prompts, then waits until every part has done its work.

Nothing here is special to the demo but the prompts and the annotator: scores, verdict, cases and export are made by the
same processes, from the same kind of settings file, that a user runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from collector.catalog import EndpointTables
from evaluators.preparation.prepare import SMOLLM2
from servelens.assembly.tables import build_catalog
from servelens.demo.backend import ModelServer, Server
from servelens.demo.configuration import (
    ENDPOINT,
    EXPERIMENT,
    PREFERRED_CONSOLE_PORT,
    PREFERRED_PROXY_PORT,
    free_port,
    write_configuration,
)
from servelens.demo.drive import Answer, drive
from servelens.demo.prompts import prompts
from servelens.demo.summary import print_summary, thumbs_said, variant_rows
from servelens.errors import Unavailable
from servelens.processes import models_prepare
from servelens.settings_file import load_settings

_EVALUATIONS = (("toxicity", "request"), ("toxicity", "response"), ("perplexity", "response"))
_LABELED = 3
_LOG_WIDTH = 110
_ANNOTATOR = "demo"


def run(
    directory: Path, *, once: bool, model_server: Callable[[Path, int, Path], Server] = ModelServer
) -> int:
    """Run the demo in a new folder under ``directory``; returns the exit status.

    ``model_server`` is called with the model's folder, a port and a log file.

    Raises :class:`~servelens.errors.Unavailable` when a part does not do its work in time, naming its log.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=_LOG_WIDTH)
    models_dir = (
        Path(os.environ.get("SERVELENS_MODELS_DIR", models_prepare.DEFAULT_MODELS_DIR)).expanduser().resolve()
    )
    models_prepare.run(models_dir, console)
    folder = directory.resolve() / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        # A demo that is told to stop takes down what it started.
        former = signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
        stack.callback(signal.signal, signal.SIGTERM, former)
        server = stack.enter_context(
            model_server(models_dir / SMOLLM2, free_port(), folder / "model-server.log")
        )
        config = write_configuration(
            folder,
            models_dir,
            server.url,
            server.model,
            free_port(PREFERRED_PROXY_PORT),
            free_port(PREFERRED_CONSOLE_PORT),
        )
        settings = load_settings(config)
        proxy = f"http://{settings.proxy.host}:{settings.proxy.port}"
        dashboard = f"http://{settings.console.host}:{settings.console.port}"
        log = folder / "servelens.log"
        console.print(f"Folder {folder}: servelens.yaml, logs and data", highlight=False, soft_wrap=True)
        with console.status("Starting the model server (transformers serve, SmolLM2-135M-Instruct)"):
            server.wait_until_ready()
        stack.enter_context(_system(config, log))
        with console.status("Starting servelens up"):
            _until(lambda: _ready(proxy) and _ready(dashboard), 120, "servelens was not ready", log)

        tables = build_catalog(settings).tables(ENDPOINT)
        answers = _drive(console, proxy)
        failed = [answer for answer in answers if answer.error]
        for answer in failed[:3]:
            console.print(f"[yellow]failed[/yellow] {answer.prompt.text!r}: {answer.error}", highlight=False)
        with console.status("Waiting for the records in the table"):
            _until(lambda: _rows(tables) >= len(answers), 30, "records are missing in the table", log)
            rated = sum(answer.prompt.thumbs is not None and not answer.error for answer in answers)
            _until(lambda: _thumbs(tables) >= rated, 30, "feedback is missing in its table", log)
        _wait_for_scores(console, tables, log)
        with httpx.Client(base_url=dashboard, timeout=30) as api:
            with console.status("Analysing the experiment"):
                report = _final_report(api, tables, log)
            with console.status("Selecting and labeling cases"):
                _until(lambda: _cases(api).get("open", 0) > 0, 60, "no case was queued", log)
                _label_some(api)
            cases = _cases(api)
            export_file = folder / "fine-tuning.jsonl"
            exported = _export(api, export_file)
        print_summary(
            console,
            sent=len(answers),
            in_table=_rows(tables),
            rows=variant_rows(tables),
            report=report,
            thumbs=thumbs_said(tables),
            cases=cases,
            exported=exported,
            export_file=os.path.relpath(export_file),
            dashboard=dashboard,
            proxy=proxy,
        )
        if failed or _rows(tables) != len(answers):
            console.print(f"[red]{len(failed)} calls failed[/red]; see {log}", highlight=False)
            return 1
        if not once:
            console.print("Ctrl-C stops everything.")
            _wait_for_interrupt()
    return 0


@contextmanager
def _system(config: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "servelens", "up", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _drive(console: Console, proxy: str) -> list[Answer]:
    todo = prompts()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Sending prompts", total=len(todo), last="")

        def show(answer: Answer) -> None:
            text = " ".join((answer.error or answer.text).split())
            bar.update(task, advance=1, last=f"{answer.prompt.user}: {text[:48]}")

        return drive(proxy, ENDPOINT, todo, show)


def _wait_for_scores(console: Console, tables: EndpointTables, log: Path) -> None:
    total = _rows(tables) * len(_EVALUATIONS)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Scoring toxicity and perplexity", total=total)

        def done() -> bool:
            rows = tables.scores.scan().select("score").collect().height
            bar.update(task, completed=rows)
            return rows >= total

        _until(done, 240, "scores are missing", log)


def _final_report(api: httpx.Client, tables: EndpointTables, log: Path) -> dict[str, Any]:
    """The first report that rests on every record and score that is there now."""
    payload_version, scores_version = tables.payload.version() or 0, tables.scores.version() or 0
    latest: dict[str, Any] = {}

    def covers() -> bool:
        answer = api.get(f"/api/experiments/{EXPERIMENT}")
        report = answer.json()["report"] if answer.status_code == 200 else None
        if report is None:
            return False
        latest.update(report)
        return (report["payload_version"] or 0) >= payload_version and (
            report["scores_version"] or 0
        ) >= scores_version

    _until(covers, 120, "the experiment was not analysed", log)
    return latest


def _label_some(api: httpx.Client) -> None:
    for _ in range(_LABELED):
        claimed = api.post("/api/relabel/claim", json={"annotator": _ANNOTATOR})
        if claimed.status_code == 204:
            return
        claimed.raise_for_status()
        label = {
            "annotator": _ANNOTATOR,
            "rating": "bad",
            "corrected_answer": "I am happy to help. Could you tell me a little more about what you need?",
            "comment": "labeled by the demo",
        }
        api.post(f"/api/relabel/cases/{claimed.json()['id']}/label", json=label).raise_for_status()


def _export(api: httpx.Client, path: Path) -> int:
    answer = api.get("/api/relabel/export")
    answer.raise_for_status()
    path.write_bytes(answer.content)
    return len(answer.content.splitlines())


def _cases(api: httpx.Client) -> dict[str, int]:
    answer = api.get("/api/relabel/counts")
    answer.raise_for_status()
    counts: dict[str, int] = answer.json()["total"]
    return counts


def _rows(tables: EndpointTables) -> int:
    return tables.payload.scan().select("databricks_request_id").collect().height


def _thumbs(tables: EndpointTables) -> int:
    return sum(thumbs_said(tables).values())


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _until(condition: Callable[[], bool], limit_s: float, problem: str, log: Path) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable(f"{problem} within {limit_s:g} s.", fix=f"The log is {log}.")
        time.sleep(0.3)


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
