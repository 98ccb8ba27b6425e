"""A case with its label as a decision left it: what every export is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from relabel.case import Resolution
from relabel.label import Rating

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledCase:
    """``messages`` end with the recorded answer when ``answered``. ``alternatives`` are as stored (``id``, ``message``).
    ``labels`` is how many people labeled it and ``agreement`` the share that says the same; the rest as in
    :class:`relabel.case.Case` and :class:`relabel.label.Label`.
    """

    case_id: int
    decision_id: int
    label_id: int
    endpoint: str
    databricks_request_id: str
    request_time: datetime
    served_entity: str | None = None
    variant: str | None = None
    model: str | None = None
    messages: Sequence[Message]
    answered: bool
    tools: Sequence[Mapping[str, Any]] | None = None
    alternatives: Sequence[Mapping[str, Any]] = ()
    rating: Rating | None = None
    corrected_answer: str | None = None
    tags: Sequence[str] = ()
    comment: str | None = None
    preferred: str | None = None
    values: Mapping[str, Any]
    annotator: str = ""
    schema_version: int = 0
    labeled_at: datetime
    source: str = "servelens"
    resolution: Resolution | None = None
    labels: int = 1
    agreement: float | None = None
    decided_at: datetime

    @property
    def asked(self) -> Sequence[Message]:
        """The conversation without the recorded answer."""
        return self.messages[:-1] if self.answered else self.messages
