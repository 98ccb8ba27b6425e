"""What is wrong with a block of settings that came by request, in one line, by the place where its sender wrote it."""

from __future__ import annotations

from pydantic import ValidationError

from servelens.errors import Invalid


def invalid_settings(error: ValidationError) -> Invalid:
    """The first mistake; how many more there are is said at its end."""
    first, *others = error.errors(include_url=False)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).strip(".")
    more = f" ({len(others)} more after this.)" if others else ""
    if first["type"] == "extra_forbidden":
        return Invalid("there is no such field here.", field=place, fix=f"Leave it out.{more}")
    if first["type"] == "missing":
        return Invalid("is missing.", field=place, fix=f"Give it.{more}")
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        nested, _, rest = message.partition(": ")
        if rest and " " not in nested:
            return Invalid(rest + more, field=f"{place}.{nested}".strip("."))
        return Invalid(message + more, field=place)
    if first["type"] == "string_pattern_mismatch":
        return Invalid(
            "is not a name.", field=place, fix=f"Use up to 63 letters, digits, '.', '_' and '-'.{more}"
        )
    return Invalid(f"{first['msg']}.", field=place, fix=f"Correct the value.{more}")
