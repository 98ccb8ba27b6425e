"""What every other labeling tool does for us: it is told what to ask, it gets tasks, and its annotations come back.

A tool knows a field by a name of its own and counts spans in units of its own; both are translated here and nowhere else.
What a tool says is read twice: :meth:`Tool.annotations` finds whose it is and about which case, and :meth:`Tool.answers`
what it says, once the case and the label schema that it answers are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from relabel.interchange.task_case import TaskCase
from relabel.label_schema import LabelSchema, Texts
from servelens.errors import Invalid


class Said(StrEnum):
    """What an annotator did with a task: answered it, refused it, or has not sent it off yet."""

    ANSWERED = "answered"
    SKIPPED = "skipped"
    DRAFT = "draft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What one person said about one task.

    ``external_id`` names it within the tool, ``user`` is the person as the tool knows them (an e-mail address where it gives
    one, else a number or a UUID). ``case_id``, ``databricks_request_id``, ``endpoint`` and ``schema_version`` are what the
    task carried; a task that another program made may lack some. ``raw`` is what the tool has of the answers, as JSON.
    ``duration_s`` is how long they took.
    """

    external_id: str
    user: str
    said: Said
    case_id: int | None
    databricks_request_id: str | None
    endpoint: str | None
    schema_version: int | None
    raw: Any
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers as :meth:`~relabel.label_schema.LabelSchema.read` takes them."""

    values: Mapping[str, Any]
    comment: str | None


class Tool(Protocol):
    """Another labeling tool."""

    @property
    def name(self) -> str:
        """As in commands, paths and :attr:`relabel.label.GivenLabel.source`."""
        ...

    @property
    def config_type(self) -> str:
        """The media type of :meth:`config`."""
        ...

    def config(self, schema: LabelSchema) -> str:
        """What the tool has to be told once, so that it asks what ``schema`` asks. Raises
        :class:`~servelens.errors.Invalid` when it cannot.
        """
        ...

    def task(self, case: TaskCase, schema: LabelSchema) -> dict[str, Any]:
        """A case as the tool takes it (JSON), with what may be suggested."""
        ...

    def annotations(self, element: Mapping[str, Any]) -> Iterator[Annotation | Invalid]:
        """The annotations of one element of the array that the tool exports, with the mistake in place of one that cannot
        be read. Raises :class:`~servelens.errors.Invalid` when the element is nothing that the tool writes.
        """
        ...

    def answers(self, annotation: Annotation, schema: LabelSchema, texts: Texts) -> Answers:
        """What an annotation says, by the names of the schema's fields. Raises :class:`~servelens.errors.Invalid`, naming
        ``values.NAME``, for what cannot be translated; whether an answer fits the schema, the schema says.
        """
        ...
