"""Exports labeled cases as fine-tuning data.

Invariants: the same labels give the same bytes, in the order of the cases; an example is written whole or not
at all; a file appears under its name only when it is complete. Labels given while an export runs are left to
the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sqlalchemy import func, select

from relabel.export.formats.openai_chat import LeftOut, chat_example
from relabel.label import Rating
from relabel.models import CaseRow, LabelRow
from servelens.database import Database
from servelens.errors import Unavailable

_CASES_PER_READ = 500


class _Labeled(NamedTuple):
    case_id: int
    rating: Rating
    corrected_answer: str | None
    messages: list[dict[str, Any]]
    answered: bool
    tools: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """How many examples were written, and how many labeled cases gave none, by reason."""

    written: int
    left_out: Mapping[str, int]


class OpenAIChatExport:
    """Labeled cases as OpenAI chat fine-tuning JSONL: the corrected answer, or the recorded one when it was
    rated good.

    Iterating gives chunks of whole lines (UTF-8); afterwards :attr:`summary` tells what they hold. Memory
    does not grow with the number of cases, and no transaction stays open between two chunks. ``since`` ≤
    request time < ``until``.
    """

    def __init__(
        self,
        database: Database,
        *,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        self._database = database
        self._endpoint = endpoint
        self._since = since
        self._until = until
        self._written = 0
        self._left_out: Counter[LeftOut] = Counter()

    @property
    def summary(self) -> ExportSummary:
        """What has been written so far."""
        return ExportSummary(
            self._written, {str(reason): self._left_out[reason] for reason in sorted(self._left_out)}
        )

    def __iter__(self) -> Iterator[bytes]:
        """Start anew. Raises :class:`~servelens.errors.Unavailable` when the database fails on the way."""
        self._written = 0
        self._left_out.clear()
        last_case, last_label = 0, self._last_label()
        while rows := self._read(last_case, last_label):
            last_case = rows[-1].case_id
            lines = b"".join(map(self._line, rows))
            if lines:
                yield lines

    def _line(self, row: _Labeled) -> bytes:
        example = chat_example(
            row.messages,
            row.tools,
            answered=row.answered,
            rating=row.rating,
            corrected_answer=row.corrected_answer,
        )
        if isinstance(example, LeftOut):
            self._left_out[example] += 1
            return b""
        self._written += 1
        return json.dumps(example, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"

    def _last_label(self) -> int:
        with self._database.session(read_only=True) as session:
            return session.scalar(select(func.max(LabelRow.id))) or 0

    def _read(self, last_case: int, last_label: int) -> list[_Labeled]:
        wanted = (
            select(
                CaseRow.id,
                LabelRow.rating,
                LabelRow.corrected_answer,
                CaseRow.messages,
                CaseRow.answered,
                CaseRow.tools,
            )
            .join(LabelRow, LabelRow.case_id == CaseRow.id)
            .where(LabelRow.case_id > last_case, LabelRow.id <= last_label)
            .order_by(LabelRow.case_id)
            .limit(_CASES_PER_READ)
        )
        if self._endpoint is not None:
            wanted = wanted.where(CaseRow.endpoint == self._endpoint)
        if self._since is not None:
            wanted = wanted.where(CaseRow.request_time >= self._since)
        if self._until is not None:
            wanted = wanted.where(CaseRow.request_time < self._until)
        with self._database.session(read_only=True) as session:
            return [_Labeled(*row) for row in session.execute(wanted)]


def write_openai_chat(
    database: Database,
    stream: BinaryIO,
    *,
    endpoint: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> ExportSummary:
    """Write OpenAI chat fine-tuning JSONL to ``stream``; see :class:`OpenAIChatExport`."""
    export = OpenAIChatExport(database, endpoint=endpoint, since=since, until=until)
    for lines in export:
        stream.write(lines)
    return export.summary


def export_openai_chat(
    database: Database,
    path: Path,
    *,
    endpoint: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> ExportSummary:
    """Write OpenAI chat fine-tuning JSONL to the file ``path``, replacing one that is there.

    Raises :class:`~servelens.errors.Unavailable` when the file cannot be written; ``path`` is then as it was.
    """
    try:
        with _replacing(path) as stream:
            return write_openai_chat(database, stream, endpoint=endpoint, since=since, until=until)
    except OSError as error:
        raise Unavailable(
            f"the export cannot be written: {error}", field=str(path), fix="Give a file in a writable folder."
        ) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(
                stream.fileno(), 0o644
            )  # mkstemp gives 0600, but a training job may run as somebody else
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
