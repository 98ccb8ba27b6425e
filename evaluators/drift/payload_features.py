"""What a tabular model was asked and what it answered, as columns: ``feature:NAME``, ``prediction`` and
``prediction:NAME``, from the scoring payloads in the inference table.

A call can hold many examples, a record is one row. So the columns are lists, one value per example, all of a record's of
one length; whoever sums them up takes the lists apart (:func:`examples`), and slices go by record as for every other
column. Examples of one call are seldom independent: with few large calls, p-values are too small.

A column is numeric when most of its values in the window are numbers, else categorical; true and false are categories.
What does not fit is null (a word among numbers), or text (a number among words). An integer that stands for a category
is a number here.

Invariant: memory is bounded, by ``most_examples`` per window and ``most_columns``. Of more records a uniform sample is
read, of a larger call evenly spaced examples. A payload that cannot be read costs its record only, and is counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl

from collector.catalog import EndpointTables
from evaluators.drift.payload_examples import UNNAMED, Examples, features, is_text, predictions
from evaluators.drift.sketches.vectors import keys
from evaluators.drift.sources import REQUEST_ID, Kind, Observation, ObservedColumn
from evaluators.drift.windows import Window
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

FEATURE: Final = "feature:"
PREDICTION: Final = "prediction"
MOST_EXAMPLES: Final = 200_000
MOST_COLUMNS: Final = 100

# Chats can come that way too; they have no examples.
_SCORING: Final = "invocations"
_BATCH: Final = 2_000
_WORD_CHARACTERS: Final = 100
_NUMBERS: Final = frozenset({int, float, type(None)})


@dataclass(frozen=True, slots=True)
class PayloadFeatures:
    """A :class:`~evaluators.drift.sources.WindowSource` over requests and answers of scoring calls; it gives nothing, and
    reads nearly nothing, where there are none."""

    most_examples: int = MOST_EXAMPLES
    most_columns: int = MOST_COLUMNS
    name: ClassVar[str] = "features"
    version: ClassVar[str] = "2"

    def read(self, tables: EndpointTables, window: Window, *, version: int | None = None) -> Observation:
        """One column of lists per feature and prediction that an example of the window has."""
        calls = tables.payload.scan(since=window.start, until=window.end, version=version).filter(
            pl.col("api") == _SCORING, ~pl.col("is_shadow").fill_null(value=False)
        )
        gathered = _Gathered(self.most_columns)
        try:
            ids = calls.select(REQUEST_ID).collect()[REQUEST_ID].drop_nulls()
            if ids.is_empty():
                return Observation(pl.DataFrame(schema={REQUEST_ID: pl.String}), ())
            read = pl.DataFrame({REQUEST_ID: ids})
            if ids.len() > self.most_examples:
                read = read.with_columns(keys(ids)).bottom_k(self.most_examples, by="key").drop("key")
            most = self.most_examples // read.height
            bodies = calls.select(REQUEST_ID, "request", "response").join(
                read.lazy(), on=REQUEST_ID, maintain_order="left"
            )
            for batch in bodies.collect_batches(chunk_size=_BATCH, maintain_order=True, lazy=True):
                gathered.add(batch, most)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=tables.payload.uri) from error
        gathered.log(tables.payload.uri, window, sampled=read.height, of=ids.len())
        return gathered.observation()


def examples(column: pl.Series) -> pl.Series:
    """The values of a column of lists, one per example; a record without any has one null. Others as they are."""
    return column.explode() if isinstance(column.dtype, pl.List) else column


@dataclass(slots=True)
class _Column:
    """A column's examples, batch by batch, as numbers and as words: at each place at most one of the two. ``before``: how
    many examples came before it was first seen."""

    before: int
    numbers: list[pl.Series] = field(default_factory=list)
    words: list[pl.Series] = field(default_factory=list)

    def add(self, values: Sequence[Any]) -> None:
        if set(map(type, values)) <= _NUMBERS:
            self.numbers.append(_numbers(values))
            self.words.append(pl.repeat(None, len(values), dtype=pl.String, eager=True))
            return
        self.numbers.append(_numbers([value if type(value) in _NUMBERS else None for value in values]))
        self.words.append(pl.Series([_word(value) for value in values], dtype=pl.String))

    def settled(self) -> tuple[pl.Series, Kind]:
        """All examples, as the one or the other."""
        numbers = pl.concat([pl.repeat(None, self.before, dtype=pl.Float64, eager=True), *self.numbers])
        words = pl.concat([pl.repeat(None, self.before, dtype=pl.String, eager=True), *self.words])
        if numbers.count() >= words.count():
            return numbers, Kind.NUMERIC
        if numbers.count():
            words = pl.select(pl.coalesce(words, numbers.cast(pl.String))).to_series()
        return words, Kind.CATEGORICAL


class _Gathered:
    """The examples of a window's calls so far."""

    def __init__(self, most_columns: int) -> None:
        self._most_columns = most_columns
        self._ids: list[str] = []
        self._lengths: list[int] = []
        self._columns: dict[str, _Column] = {}
        self._left_out: set[str] = set()
        self._rows = 0
        self._counts: Counter[str] = Counter()

    def add(self, batch: pl.DataFrame, most: int) -> None:
        """A batch of calls: ids, requests and responses."""
        flat: dict[str, list[Any]] = {}
        rows = 0
        for request_id, request, response in batch.iter_rows():
            length, values = self._of_record(request, response, most)
            if length == 0:
                continue
            self._ids.append(request_id)
            self._lengths.append(length)
            for name, column in values:
                if name in self._left_out:
                    continue
                if name not in flat:
                    if len(self._columns.keys() | flat.keys() | {name}) > self._most_columns:
                        self._left_out.add(name)
                        continue
                    flat[name] = []
                so_far = flat[name]
                so_far.extend([None] * (rows - len(so_far)))
                so_far.extend(column)
            rows += length
        for name, so_far in flat.items():
            so_far.extend([None] * (rows - len(so_far)))
            self._columns.setdefault(name, _Column(self._rows)).add(so_far)
        for name in self._columns.keys() - flat.keys():
            self._columns[name].add([None] * rows)
        self._rows += rows

    def observation(self) -> Observation:
        """One row per record, lists of its examples."""
        frame = pl.DataFrame({REQUEST_ID: pl.Series(self._ids, dtype=pl.String)})
        owners = pl.Series("owner", np.repeat(np.arange(len(self._ids)), self._lengths))
        settled = {name: column.settled() for name, column in self._columns.items()}
        if settled:
            lists = (
                pl.DataFrame({name: values for name, (values, _) in settled.items()})
                .with_columns(owners)
                .group_by("owner", maintain_order=True)
                .agg(pl.all())
                .drop("owner")
            )
            frame = pl.concat([frame, lists], how="horizontal")
        columns = tuple(
            ObservedColumn(name, kind, "double" if kind is Kind.NUMERIC else "string")
            for name, (_, kind) in settled.items()
        )
        return Observation(frame, columns)

    def log(self, table: str, window: Window, *, sampled: int, of: int) -> None:
        """Say what was not read, where that is something."""
        facts = dict(self._counts)
        if sampled < of:
            facts["records_sampled"] = sampled
        if facts or self._left_out:
            logger.warning(
                "not all examples were read: table=%s window=%s records=%d %s columns_left_out=%s",
                table,
                window.start.isoformat(),
                of,
                " ".join(f"{name}={count}" for name, count in sorted(facts.items())),
                ",".join(sorted(self._left_out)[:10]) or 0,
            )

    def _of_record(
        self, request: str | None, response: str | None, most: int
    ) -> tuple[int, list[tuple[str, Sequence[Any]]]]:
        asked = self._parsed("requests_malformed", features, request, most)
        answered = self._parsed("responses_malformed", predictions, response, most)
        if request is not None and asked is None:
            return 0, []
        if asked is not None and answered is not None and asked.rows != answered.rows:
            self._counts["responses_of_other_length"] += 1
            answered = None
        values: list[tuple[str, Sequence[Any]]] = []
        for found, named in ((asked, _feature), (answered, _prediction)):
            if found is not None:
                self._counts.update({"nested_columns": found.nested} if found.nested else {})
                values.extend((named(name), column) for name, column in found.columns.items())
        rows = max((found.rows for found in (asked, answered) if found is not None), default=0)
        if rows > most:
            self._counts["examples_left_out"] += rows - most
        return (min(rows, most), values) if values else (0, [])

    def _parsed(self, fault: str, parse: Any, body: str | None, most: int) -> Examples | None:
        if body is None:
            return None
        try:
            found: Examples | None = parse(body, most)
        except ValueError:
            self._counts[fault] += 1
            return None
        return found


def _feature(name: str) -> str:
    return FEATURE + name


def _prediction(name: str) -> str:
    return PREDICTION if name == UNNAMED else f"{PREDICTION}:{name}"


def _numbers(values: Sequence[Any]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64, strict=False)  # an integer beyond what a double holds is null


def _word(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return None
    word = value[:_WORD_CHARACTERS]
    return word if is_text(word) else word.encode("utf-8", "replace").decode("utf-8")
