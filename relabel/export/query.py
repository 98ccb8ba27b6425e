"""Which labels an export takes, and how: all that decides the bytes it writes.

Invariant: a query with ``as_of`` means the same labels for as long as these are kept, and its JSON makes the same query
again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar, get_args

from relabel.case import ReasonKind, Resolution
from relabel.export.formats.format import Layout
from relabel.export.formats.registry import format_of
from relabel.label import ANSWER, TIE, Rating
from servelens.errors import Invalid
from servelens.personal_data.found import Kind

ALTERNATIVE: Final = "alternative"
"""``preferred`` of a query: any alternative."""
PERSONAL_DATA: Final[tuple[Kind, ...]] = get_args(Kind)

SplitBy: TypeAlias = Literal["unit", "session", "case"]
Dedupe: TypeAlias = Literal["exact", "near"]
_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Split:
    """About the share ``test`` (0 < … < 1) of the groups of cases goes to a test set; see :mod:`relabel.export.split`."""

    test: float
    seed: int = 0
    by: SplitBy = "unit"

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid` naming the field."""
        if not 0 < self.test < 1:
            raise Invalid(f"{self.test:g} is no share", field="split.test", fix="Use one between 0 and 1.")
        if self.by not in get_args(SplitBy):
            raise Invalid(
                f"{self.by!r} is nothing to split by", field="split.by", fix="Use unit, session or case."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportQuery:
    """``since`` ≤ request time < ``until``. A case has to have all of ``tags``, and for each of ``values`` the field that
    value, or among its values. ``preferred`` is ``answer``, ``tie``, ``alternative`` or the id of one. Of several
    ``resolutions``, ``rules`` or ``reasons`` one is enough. ``as_of``: as the decisions up to that one left the labels
    (``None``: now). ``mask`` names the kinds of personal data that are replaced.

    Raises :class:`~servelens.errors.Invalid`, naming the field, when it cannot be one.
    """

    format: str = "openai_chat"
    endpoints: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    rating: Rating | None = None
    tags: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    preferred: str | None = None
    min_agreement: float | None = None
    resolutions: tuple[Resolution, ...] = ()
    rules: tuple[str, ...] = ()
    reasons: tuple[ReasonKind, ...] = ()
    served_entity: str | None = None
    variant: str | None = None
    as_of: int | None = None
    split: Split | None = None
    dedupe: Dedupe | None = None
    mask: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        """Check and normalise: words become their enumerations, sets are sorted."""
        layout = format_of(self.format).layout
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise Invalid("it has no time zone", field=name, fix="Add one, as in 2026-03-01T00:00:00Z.")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise Invalid("it is not after 'since'", field="until", fix="Give a later time.")
        if self.rating is not None:
            object.__setattr__(self, "rating", _word(Rating, self.rating, "rating"))
        for name, kind in (("resolutions", Resolution), ("reasons", ReasonKind)):
            words = {_word(kind, each, name) for each in getattr(self, name)}
            object.__setattr__(self, name, tuple(sorted(words)))
        for name in ("endpoints", "tags", "rules", "values"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise Invalid(
                f"{self.min_agreement:g} is no share", field="min_agreement", fix="Use one from 0 to 1."
            )
        if self.as_of is not None and not 0 <= self.as_of < 2**63:
            raise Invalid("it is no decision", field="as_of", fix="Use the 'as_of' of a manifest.")
        if self.dedupe is not None and self.dedupe not in get_args(Dedupe):
            raise Invalid(f"{self.dedupe!r} is unknown", field="dedupe", fix="Use exact or near.")
        for kind_name in self.mask:
            if kind_name not in PERSONAL_DATA:
                known = ", ".join(PERSONAL_DATA)
                raise Invalid(f"{kind_name!r} is no kind of personal data", field="mask", fix=f"Use {known}.")
        object.__setattr__(self, "mask", tuple(sorted(set(self.mask))))
        if layout is Layout.TABLE:
            self._refuse_filters()

    def of_preferred(self, preferred: str | None) -> bool:
        """Whether a label's preference is asked for."""
        if self.preferred is None:
            return True
        if self.preferred == ALTERNATIVE:
            return preferred is not None and preferred not in (ANSWER, TIE)
        return preferred == self.preferred

    def to_json(self) -> dict[str, Any]:
        """What is not the default, as JSON."""
        found: dict[str, Any] = {"format": self.format}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if value == each.default:
                continue
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, Split):
                value = {"test": value.test, "seed": value.seed, "by": value.by}
            elif each.name == "values":
                value = [list(pair) for pair in value]
            elif isinstance(value, tuple):
                value = [str(word) for word in value]
            found[each.name] = value
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The query that :meth:`to_json` wrote. Raises :class:`~servelens.errors.Invalid` naming the field."""
        known = {each.name for each in dataclasses.fields(cls)}
        for name in value:
            if name not in known:
                raise Invalid("it is no part of a query", field=f"query.{name}"[:100])
        parts: dict[str, Any] = dict(value)
        try:
            for name in ("since", "until"):
                if name in parts:
                    parts[name] = datetime.fromisoformat(parts[name])
            if "split" in parts:
                parts["split"] = Split(**parts["split"])
            if "values" in parts:
                parts["values"] = tuple((str(name), str(word)) for name, word in parts["values"])
            for name in ("endpoints", "tags", "resolutions", "rules", "reasons", "mask"):
                if name in parts:
                    parts[name] = tuple(map(str, parts[name]))
            return cls(**parts)
        except (TypeError, ValueError) as error:
            raise Invalid(f"it is no query: {error}", field="query") from error

    def _refuse_filters(self) -> None:
        for each in dataclasses.fields(self):
            if each.name not in ("format", "endpoints", "as_of") and getattr(self, each.name) != each.default:
                raise Invalid(
                    "the table of labels takes every label, once",
                    field=each.name,
                    fix="Leave it out, and filter where the table is read.",
                )


def field_value(text: str) -> tuple[str, str]:
    """``FIELD=VALUE``. Raises :class:`~servelens.errors.Invalid` when it is none."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value:
        raise Invalid(f"{text!r} is no FIELD=VALUE"[:200], field="value", fix="Write it as topic=billing.")
    return name.strip(), value


def _word(kind: type[_Word], value: str, field: str) -> _Word:
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid(
            f"{value!r} is unknown"[:200], field=field, fix=f"Use one of: {', '.join(kind)}."
        ) from error
