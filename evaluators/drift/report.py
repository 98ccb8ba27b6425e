"""The Evidently report (HTML) of a window against its reference window, for a person who wants to look
closer.

Evidently works in memory on pandas frames and takes tens of seconds for some 100,000 rows, so it gets a
bounded random sample of each window; the numbers that alerts and pages use are those of
:mod:`evaluators.drift.rows`.

Invariants: a report is complete or not there (written beside and renamed). It needs no network: scripts,
styles and fonts are in the file, and its content security policy forbids the browser to load anything else.
What callers and backends wrote (model names, finish reasons) cannot become markup in it.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from html import escape
from pathlib import Path
from typing import Any, Final

import polars as pl

from evaluators.drift.window_data import Kind, ObservedColumn, observed_columns, with_columns
from evaluators.drift.windows import Window
from servelens.errors import Invalid, Unavailable

logger = logging.getLogger(__name__)

MAX_ROWS: Final = 5_000
_SEED: Final = 20
_LABEL_CHARACTERS: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_UNNAMEABLE: Final = re.compile(r"[^A-Za-z0-9_.=-]+")
_NAME_CHARACTERS: Final = 80
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src 'none'; form-action 'none'; base-uri 'none'"
)


class ReportWriter:
    """Writes ``<reports_dir>/<endpoint>/<name>.html`` and keeps the newest ``keep`` reports of each
    endpoint."""

    def __init__(self, reports_dir: Path, *, max_rows: int = MAX_ROWS, keep: int = 20) -> None:
        self._reports_dir = reports_dir
        self._max_rows = max_rows
        self._keep = keep

    def write(
        self,
        current: pl.DataFrame,
        reference: pl.DataFrame,
        *,
        endpoint: str,
        window: Window,
        window_cmp: Window,
        granularity: str,
        about: str = "",
        output: Path | None = None,
    ) -> Path | None:
        """Write the report on two frames of ``read_window`` and give its path; ``None`` when there is
        nothing to show.

        ``about`` is said in the title and is part of the name: what was chosen of the traffic. With ``output`` it is
        written there, and nothing is forgotten. Without a reference row it shows the current window alone. A tabular
        call is as many rows as it has examples. Raises :class:`~servelens.errors.Unavailable` when Evidently fails or
        the folder cannot be written.
        """
        if current.is_empty():
            return None
        if not _NAME.fullmatch(endpoint):
            raise Invalid(f"{endpoint!r} cannot name a folder of reports", field="endpoint")
        columns = observed_columns(current, reference)
        samples = [self._sample(frame, columns) for frame in (current, reference)]
        whose = f"{endpoint}, {about}" if about else endpoint
        title = f"{whose}: {_span(window)} against {_span(window_cmp)} ({granularity})"
        html = _confined(_evidently_html(samples[0], samples[1], columns), escape(title))
        path = output or self._reports_dir / endpoint / _file_name(granularity, window, about)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, html)
            if output is None:
                self._forget_old(path.parent)
        except OSError as error:
            field = "reports_dir" if output is None else "output"
            raise Unavailable(f"the report cannot be written: {error}", field=field) from error
        return path

    def _sample(self, frame: pl.DataFrame, columns: Sequence[ObservedColumn]) -> pl.DataFrame:
        complete = with_columns(self._some(frame), list(columns))
        examples = [name for name, dtype in complete.schema.items() if isinstance(dtype, pl.List)]
        if examples:
            complete = self._some(complete.explode(examples))
        return complete.select(_harmless(column) for column in columns)

    def _some(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame if frame.height <= self._max_rows else frame.sample(self._max_rows, seed=_SEED)

    def _forget_old(self, folder: Path) -> None:
        reports = sorted(folder.glob("*.html"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in reports[self._keep :]:
            path.unlink(missing_ok=True)


def _harmless(column: ObservedColumn) -> pl.Expr:
    if column.kind is Kind.NUMERIC:
        number = pl.col(column.name).cast(pl.Float64)
        return pl.when(number.is_finite()).then(number).alias(column.name)
    # Evidently puts categories unescaped into a script element of the page.
    text = pl.col(column.name).cast(pl.String).str.slice(0, _LABEL_CHARACTERS)
    return (
        text.str.replace_all("<", "‹", literal=True).str.replace_all(">", "›", literal=True).fill_null("none")
    )


def _evidently_html(current: pl.DataFrame, reference: pl.DataFrame, columns: Sequence[ObservedColumn]) -> str:
    both = not reference.is_empty()
    # Evidently cannot compare a column of which one side is empty.
    shown = [
        column
        for column in columns
        if current[column.name].count() and (not both or reference[column.name].count())
    ]
    names = [column.name for column in shown]
    try:
        with warnings.catch_warnings():
            # Evidently and what it imports use interfaces that numpy, pandas and litestar have deprecated,
            # and its statistics divide by zero on constant columns. None of it is about our data or in our
            # hands.
            warnings.simplefilter("ignore")
            import pandas as pd
            from evidently import DataDefinition, Dataset, Report
            from evidently.presets import DataDriftPreset, DataSummaryPreset

            definition = DataDefinition(
                numerical_columns=[column.name for column in shown if column.kind is Kind.NUMERIC],
                categorical_columns=[column.name for column in shown if column.kind is Kind.CATEGORICAL],
            )

            def dataset(frame: pl.DataFrame) -> Any:
                values = {name: frame[name].to_numpy() for name in names}
                return Dataset.from_pandas(pd.DataFrame(values), data_definition=definition)

            if both:
                report = Report([DataDriftPreset(), DataSummaryPreset()])
                snapshot = report.run(dataset(current), dataset(reference))
            else:
                snapshot = Report([DataSummaryPreset()]).run(dataset(current), None)
            html: str = snapshot.get_html_str(as_iframe=False)
    except Exception as error:
        raise Unavailable(f"Evidently made no report: {type(error).__name__}: {error}") from error
    return html


def _confined(html: str, title: str) -> str:
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    opened, found, rest = html.partition('<meta charset="UTF-8">')
    if not found:
        raise Unavailable("Evidently's page has changed its form, so it cannot be kept from the network")
    return f"{opened}{found}{policy}<title>{title}</title>{rest}"


def _write_atomically(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".report-", suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _span(window: Window) -> str:
    return f"{window.start:%Y-%m-%d %H:%M:%S} to {window.end:%Y-%m-%d %H:%M:%S} UTC"


def _file_name(granularity: str, window: Window, about: str) -> str:
    parts = [granularity, _stamp(window)]
    if about:
        # Two choices that differ in other signs only have names of their own all the same.
        parts += [about, blake2b(about.encode(), digest_size=3).hexdigest()]
    return "_".join(_UNNAMEABLE.sub("-", part)[:_NAME_CHARACTERS] for part in parts) + ".html"


def _stamp(window: Window) -> str:
    return f"{window.start:%Y%m%dT%H%M%S}_{window.end:%Y%m%dT%H%M%S}"
