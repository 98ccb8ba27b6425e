"""A query in the words in which people ask for one: parameters of the API and options of the command line.

Errors name those words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from relabel.export.query import PERSONAL_DATA, ExportQuery, Split, field_value
from servelens.errors import Invalid

ALL: Final = "all"
_WORDS: Final = {
    "endpoints": "endpoint",
    "tags": "tag",
    "values": "value",
    "resolutions": "resolution",
    "rules": "rule",
    "reasons": "reason",
    "split.test": "split",
    "split.by": "split_by",
}


def requested_query(
    *,
    format: str = "openai_chat",
    endpoint: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    rating: str | None = None,
    tag: Sequence[str] = (),
    value: Sequence[str] = (),
    preferred: str | None = None,
    min_agreement: float | None = None,
    resolution: Sequence[str] = (),
    rule: Sequence[str] = (),
    reason: Sequence[str] = (),
    served_entity: str | None = None,
    variant: str | None = None,
    as_of: int | None = None,
    split: float | None = None,
    split_seed: int = 0,
    split_by: str = "unit",
    dedupe: str | None = None,
    mask: Sequence[str] = (),
) -> ExportQuery:
    """The query. ``value`` is ``FIELD=VALUE``; ``mask`` may be ``all``. Raises :class:`~servelens.errors.Invalid`, naming
    the parameter.
    """
    try:
        parts: dict[str, Any] = {
            "format": format,
            "endpoints": tuple(endpoint),
            "since": since,
            "until": until,
            "rating": rating,
            "tags": tuple(tag),
            "values": tuple(map(field_value, value)),
            "preferred": preferred,
            "min_agreement": min_agreement,
            "resolutions": tuple(resolution),
            "rules": tuple(rule),
            "reasons": tuple(reason),
            "served_entity": served_entity,
            "variant": variant,
            "as_of": as_of,
            "split": None if split is None else Split(split, split_seed, split_by),  # type: ignore[arg-type]
            "dedupe": dedupe,
            "mask": PERSONAL_DATA if ALL in mask else tuple(mask),
        }
        return ExportQuery(**parts)
    except Invalid as error:
        field = _WORDS.get(error.field or "", error.field)
        raise Invalid(error.message, field=field, fix=error.fix) from error
