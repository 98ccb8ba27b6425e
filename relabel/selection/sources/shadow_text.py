"""Answers whose shadow said something else, by the similarity of the two texts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from collector.table import Table
from relabel.selection.rule import CaseRule, ShadowTextRule
from relabel.selection.sources.shadow_pairs import SHADOW, shadow_pairs
from relabel.selection.sources.source import ID, Found, all_matches, matches
from relabel.selection.text_vectors import text_vectors

_RECORDS_AT_ONCE: Final = 2_000  # their texts are held


class ShadowTextSource:
    """Follows the inference table. A pair without both answers (one failed) is no disagreement."""

    name: Final = "shadow_text"
    columns: Final = (ID, "request_time")
    reads_past: Final = False
    look_back: Final[timedelta | None] = timedelta(days=1)

    def __init__(self, payload: Table, numbered: Mapping[int, ShadowTextRule]) -> None:
        self.table = payload
        self._rules = numbered

    @property
    def numbered(self) -> Mapping[int, CaseRule]:
        return self._rules

    def find(self, rows: pl.DataFrame, state: Mapping[str, Any]) -> Found:
        found = []
        for part in rows.sort("request_time", ID).iter_slices(_RECORDS_AT_ONCE):
            pairs = shadow_pairs(self.table, part, "response_text", "served_entity")
            pairs = pairs.filter(pl.col("response_text") != "", pl.col("shadow_response_text") != "")
            if pairs.is_empty():
                continue
            answers, shadows = (
                text_vectors(pairs[name].to_list()) for name in ("response_text", "shadow_response_text")
            )
            alike = np.einsum("ij,ij->i", answers, shadows).astype(np.float64)
            compared = pairs.drop("response_text", "shadow_response_text").with_columns(
                score=pl.Series(alike)
            )
            # Of several shadows the one that is furthest from the answer.
            compared = compared.sort("score", SHADOW).unique(ID, keep="first", maintain_order=True)
            for number, rule in self._rules.items():
                said = pl.format(
                    "{} answered something else: similarity {}",
                    pl.col("shadow_served_entity").fill_null("the shadow"),
                    pl.col("score").round(2),
                )
                different = compared.filter(pl.col("score") < rule.similarity_below)
                found.append(
                    matches(
                        different, number, extreme=-pl.col("score"), target=pl.lit("response"), detail=said
                    )
                )
        return Found(all_matches(found).unique([ID, "rule"], keep="first", maintain_order=True))
