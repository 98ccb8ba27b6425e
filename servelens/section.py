"""What all sections of the settings share: strictness, names, and how a double name is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]
Percentage = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of all sections: an unknown key is an error, and settings never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refuse_duplicates(names: Iterable[str], key: str, what: str) -> None:
    """Raise ``ValueError`` that names ``key`` when two of ``names`` are equal."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{key}: there are two of the {what} '{name}'. Give each its own name.")
        seen.add(name)
