"""Checks of an evaluator's options, which come as they stand in a settings file.

Invariant: a value that is refused raises ``ValueError`` with the option's name, what it takes and what was given;
the registry puts the evaluator's name in front.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal, cast

from evaluators.evaluator import Target


def as_target(value: object) -> Target:
    """``request`` or ``response``."""
    return cast("Literal['request', 'response']", as_choice("target", value, ("request", "response")))


def as_choice(option: str, value: object, allowed: Sequence[str]) -> str:
    """One of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{option} is one of {', '.join(allowed)}, not {value!r}.")
    return value


def as_flag(option: str, value: object) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ValueError(f"{option} is true or false, not {value!r}.")
    return value


def as_whole_number(option: str, value: object, *, least: int) -> int:
    """A whole number from ``least`` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{option} is a whole number of at least {least}, not {value!r}.")
    return value


def as_number(option: str, value: object, *, least: float, most: float = math.inf) -> float:
    """A finite number between ``least`` and ``most``, both allowed."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= cast("float", value) <= most or math.isinf(cast("float", value)):
        span = f"of at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
        raise ValueError(f"{option} is a number {span}, not {value!r}.")
    return float(cast("float", value))


def as_texts(option: str, value: object, *, allowed: Collection[str] | None = None) -> tuple[str, ...]:
    """One text or a list of them, as a tuple without doubles; ``None`` gives none. An empty list is refused: it would
    silently look for nothing."""
    if value is None:
        return ()
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{option} is a text or a list of texts, not {value!r}.")
    for text in given:
        if not isinstance(text, str) or not text:
            hint = (
                " YAML reads it as no text: put it in quotes." if isinstance(text, bool | int | float) else ""
            )
            raise ValueError(f"{option} is a list of texts, and {text!r} is none.{hint}")
        if allowed is not None and text not in allowed:
            raise ValueError(f"{option} does not know {text!r}. It knows: {', '.join(sorted(allowed))}.")
    return tuple(dict.fromkeys(given))
