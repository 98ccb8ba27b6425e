"""Requests for the grid and the side panel: a page at a time, filtered, sorted and searched on the server.

Invariant: whatever is asked, one read is bounded by the view's time window and by :data:`MOST_ROWS`; the long texts are
searched where they are and leave the scan only as previews. Filters and sorting come from the browser as data; a column
or an operator that is not known here is left out, never evaluated.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from collector.catalog import Catalog
from dashboard.queries import ARM, TableReader, arm_expression, collect, failed_expression
from dashboard.view import View
from servelens.errors import Missing
from servelens.identifiers import time_us

MOST_ROWS = 20_000
_PREVIEW = 160
_AROUND = timedelta(minutes=2)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCORE = "score "

_TEXT_COLUMNS = frozenset(
    {
        "prompt",
        "answer",
        ARM,
        "error_type",
        "unit",
        "databricks_request_id",
        "model",
        "session_id",
        "requester",
    }
)
_NUMBER_COLUMNS = frozenset(
    {"status_code", "execution_duration_ms", "time_to_first_token_ms", "input_tokens", "output_tokens"}
)
_LIGHT = (
    "databricks_request_id",
    "request_time",
    "status_code",
    "execution_duration_ms",
    "time_to_first_token_ms",
    "input_tokens",
    "output_tokens",
    "error_type",
    "unit",
    "model",
    "session_id",
    "requester",
    "is_stream",
)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the grid asked for: one page of rows, how many there are, and whether the limit cut older ones off."""

    rows: list[dict[str, Any]]
    total: int
    cut_off: bool
    evaluators: tuple[str, ...]


class RequestQueries:
    """Reads single requests from an endpoint's tables."""

    def __init__(self, catalog: Catalog, reader: TableReader) -> None:
        self._catalog = catalog
        self._reader = reader

    def listing(
        self,
        view: View,
        *,
        search: str,
        outcome: str,
        start: int,
        end: int,
        sort: Sequence[Mapping[str, Any]] = (),
        filters: Mapping[str, Any] | None = None,
    ) -> Listing:
        """Rows ``start`` to ``end`` of the view's requests, newest first unless ``sort`` says otherwise.

        ``search`` is found in prompt, answer and identifiers, whatever the case of its letters; ``outcome`` is
        ``all``, ``ok`` or ``failed``.
        """
        frame, evaluators = self._matching(view, search.strip(), outcome, filters or {})
        by, descending = _order(sort, frame.columns)
        ordered = frame.sort(by, descending=descending, nulls_last=True) if by else frame
        page = ordered.slice(max(0, start), max(0, end - start))
        return Listing(page.to_dicts(), frame.height, frame.height >= MOST_ROWS, evaluators)

    def evaluators(self, view: View) -> tuple[str, ...]:
        """The evaluators that scored something in the view's window, by name."""
        return self._scores(view)[1]

    def request(self, endpoint: str, request_id: str) -> dict[str, Any]:
        """All columns of one request. Its id holds its time, so only that time is read.

        Raises :class:`~servelens.errors.Missing` when there is no such record.
        """
        since, until = around(request_id)
        table = self._catalog.tables(endpoint).payload

        def compute() -> dict[str, Any] | None:
            rows = collect(
                table.scan(since=since, until=until)
                .filter(pl.col("databricks_request_id") == request_id)
                .with_columns(arm_expression(), failed_expression().alias("failed"))
                .head(1)
            )
            return rows.row(0, named=True) if rows.height else None

        row = self._reader.read([table], ("request", endpoint, request_id), compute)
        if row is None:
            raise Missing(
                "there is no such request on this endpoint",
                field=request_id[:100],
                fix="It may belong to another endpoint, or its record has not been written yet.",
            )
        return row

    def scores(self, endpoint: str, request_id: str) -> list[dict[str, Any]]:
        """The scores of one request, by evaluator."""
        since, until = around(request_id)
        table = self._catalog.tables(endpoint).scores

        def compute() -> list[dict[str, Any]]:
            rows = (
                table.scan(since=since, until=until)
                .filter(pl.col("databricks_request_id") == request_id)
                .select(
                    "evaluator",
                    "evaluator_version",
                    "model",
                    "target",
                    "score",
                    "label",
                    "unscored_reason",
                    "details",
                    "scored_at",
                )
                .sort("evaluator", "target", "scored_at")
            )
            return collect(rows).to_dicts()

        return self._reader.read([table], ("request scores", endpoint, request_id), compute)

    def _matching(
        self, view: View, search: str, outcome: str, filters: Mapping[str, Any]
    ) -> tuple[pl.DataFrame, tuple[str, ...]]:
        tables = self._catalog.tables(view.endpoint)
        scores, evaluators = self._scores(view)

        def compute() -> pl.DataFrame:
            window = view.window
            rows = tables.payload.scan(since=window.since, until=window.until).with_columns(arm_expression())
            if view.arms:
                rows = rows.filter(pl.col(ARM).is_in(list(view.arms)))
            if outcome in ("ok", "failed"):
                rows = rows.filter(failed_expression() == (outcome == "failed"))
            if search:
                rows = rows.filter(_contains(search))
            light = rows.select(
                *_LIGHT,
                ARM,
                failed_expression().alias("failed"),
                pl.col("prompt_text").str.tail(4 * _PREVIEW).alias("prompt"),
                pl.col("response_text").str.head(_PREVIEW).alias("answer"),
            )
            newest = collect(light.top_k(MOST_ROWS, by="request_time"))
            joined = newest.with_columns(
                pl.col("prompt").str.split("\n").list.last().str.head(_PREVIEW)
            ).sort("request_time", descending=True)
            if scores.height:
                joined = joined.join(scores, on="databricks_request_id", how="left", maintain_order="left")
            for expression in _filter_expressions(filters, joined.columns):
                joined = joined.filter(expression)
            return joined

        key = (
            "requests",
            view.endpoint,
            view.window,
            view.arms,
            search,
            outcome,
            json.dumps(filters, sort_keys=True),
        )
        return self._reader.read([tables.payload, tables.scores], key, compute), evaluators

    def _scores(self, view: View) -> tuple[pl.DataFrame, tuple[str, ...]]:
        table = self._catalog.tables(view.endpoint).scores

        def compute() -> tuple[pl.DataFrame, tuple[str, ...]]:
            window = view.window
            scan = table.scan(since=window.since, until=window.until).select(
                "databricks_request_id", "evaluator", "target", "score", "scored_at"
            )
            rows = collect(scan.filter(pl.col("score").is_not_null()))
            if not rows.height:
                return pl.DataFrame(), ()
            named = rows.with_columns(_score_name()).sort("scored_at")
            wide = named.pivot(
                "name", index="databricks_request_id", values="score", aggregate_function="last"
            )
            names = tuple(sorted(name for name in wide.columns if name != "databricks_request_id"))
            return wide.rename({name: _SCORE + name for name in names}), names

        return self._reader.read([table], ("scores wide", view.endpoint, view.window), compute)


def _score_name() -> pl.Expr:
    on_request = pl.format("{} of request", pl.col("evaluator"))
    return (
        pl.when(pl.col("target") == "request").then(on_request).otherwise(pl.col("evaluator")).alias("name")
    )


def score_column(evaluator: str) -> str:
    """The column of the listing that holds an evaluator's scores."""
    return _SCORE + evaluator


def around(request_id: str) -> tuple[datetime, datetime]:
    """A little before and after the time that a request id holds. Raises :class:`~servelens.errors.Missing` for another id."""
    try:
        if uuid.UUID(request_id).version != 7:
            raise ValueError(request_id)
        moment = _EPOCH + timedelta(microseconds=time_us(request_id))
    except (ValueError, OverflowError) as error:
        raise Missing(
            "that is not the id of a request",
            field=request_id[:100],
            fix="Use the x-request-id of an answer.",
        ) from error
    return moment - _AROUND, moment + _AROUND


def _contains(search: str) -> pl.Expr:
    needle = search.lower()
    texts = (
        "prompt_text",
        "response_text",
        "databricks_request_id",
        "client_request_id",
        "unit",
        "session_id",
        "trace_id",
        "error_type",
    )
    return pl.any_horizontal(
        pl.col(name).fill_null("").str.to_lowercase().str.contains(needle, literal=True) for name in texts
    )


def _order(sort: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> tuple[list[str], list[bool]]:
    known = [one for one in sort if one.get("colId") in columns]
    return [str(one["colId"]) for one in known], [one.get("sort") == "desc" for one in known]


def _filter_expressions(filters: Mapping[str, Any], columns: Sequence[str]) -> list[pl.Expr]:
    """AG Grid's filter model as expressions."""
    found = []
    for column, model in filters.items():
        if column not in columns or not isinstance(model, Mapping):
            continue
        numeric = column in _NUMBER_COLUMNS or column.startswith(_SCORE)
        if not numeric and column not in _TEXT_COLUMNS:
            continue
        conditions = model.get("conditions") if "operator" in model else [model]
        parts = [
            part
            for one in (conditions or [])
            if isinstance(one, Mapping)
            and (
                part := _number_filter(pl.col(column), one) if numeric else _text_filter(pl.col(column), one)
            )
            is not None
        ]
        if parts:
            combine = pl.any_horizontal if model.get("operator") == "OR" else pl.all_horizontal
            found.append(combine(parts))
    return found


def _number_filter(column: pl.Expr, model: Mapping[str, Any]) -> pl.Expr | None:
    kind = model.get("type")
    if kind in ("blank", "notBlank"):
        return column.is_null() if kind == "blank" else column.is_not_null()
    try:
        low = float(model["filter"])
        high = float(model["filterTo"]) if kind == "inRange" else low
    except (KeyError, TypeError, ValueError):
        return None
    operators = {
        "equals": column == low,
        "notEqual": column != low,
        "lessThan": column < low,
        "lessThanOrEqual": column <= low,
        "greaterThan": column > low,
        "greaterThanOrEqual": column >= low,
        "inRange": column.is_between(low, high),
    }
    return operators.get(str(kind))


def _text_filter(column: pl.Expr, model: Mapping[str, Any]) -> pl.Expr | None:
    kind = model.get("type")
    if kind in ("blank", "notBlank"):
        blank = column.fill_null("") == ""
        return blank if kind == "blank" else ~blank
    wanted = model.get("filter")
    if not isinstance(wanted, str):
        return None
    text, needle = column.fill_null("").str.to_lowercase(), wanted.lower()
    operators = {
        "contains": text.str.contains(needle, literal=True),
        "notContains": ~text.str.contains(needle, literal=True),
        "equals": text == needle,
        "notEqual": text != needle,
        "startsWith": text.str.starts_with(needle),
        "endsWith": text.str.ends_with(needle),
    }
    return operators.get(str(kind))
