"""Answers and their shadows: two records of one table, joined by ``shadow_of``, in whichever order they were committed."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import polars as pl

from collector.table import Table
from relabel.selection.sources.newest_scores import span
from relabel.selection.sources.source import ID, collected

SHADOW: Final = "shadow_id"
CLOSE: Final = timedelta(minutes=15)
"""A mirror begins when the answer has been written; more than this apart, the two are not found to be a pair."""


def shadow_pairs(payload: Table, records: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The pairs of which ``records`` (id and time) have either side.

    One row a pair: id, time and ``columns`` of the answer that the user got, and ``shadow_id`` and ``shadow_COLUMN``.
    """
    nothing = payload.scan().head(0)
    if records.is_empty():
        return collected(nothing.select(ID, "request_time", *columns, **_of_shadow(columns)))
    since, until = span(records, CLOSE)
    ids = records[ID].unique().to_list()
    near = payload.scan(since=since, until=until)
    of = pl.col("shadow_of")
    mirrored = near.filter(of.is_not_null(), pl.col(ID).is_in(ids) | of.is_in(ids))
    shadows = collected(mirrored.select("shadow_of", **_of_shadow(columns)))
    if shadows.is_empty():
        return collected(nothing.select(ID, "request_time", *columns, **_of_shadow(columns)))
    heard = near.filter(pl.col("shadow_of").is_null(), pl.col(ID).is_in(shadows["shadow_of"].to_list()))
    answers = collected(heard.select(ID, "request_time", *columns)).unique(ID, maintain_order=True)
    return answers.join(shadows.unique(SHADOW, maintain_order=True), left_on=ID, right_on="shadow_of")


def _of_shadow(columns: tuple[str, ...]) -> dict[str, pl.Expr]:
    return {SHADOW: pl.col(ID), **{f"shadow_{name}": pl.col(name) for name in columns}}
