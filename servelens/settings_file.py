"""Reads ``servelens.yaml`` into :class:`~servelens.settings.Settings`. The only place that reads the environment.

Any string in the file may hold ``${NAME}`` or ``${NAME:-default}``; ``SERVELENS_DATA_DIR``, ``SERVELENS_MODELS_DIR`` and
``SERVELENS_DATABASE_URL`` override their keys. Whatever is wrong ends in one
:class:`~servelens.errors.InvalidSettings` that names the file, the key and the fix.
"""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from servelens.errors import InvalidSettings
from servelens.section import NAME
from servelens.settings import Settings

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_FORMS = {
    "granularity": "5 minutes, 1 hour, 1 day, 1 week or 1 month",
    "trailing": "7 days",
    "per": "10 minutes, 1 hour or 1 day",
    "compare_with": "variant NAME or served_entity NAME",
}
_OVERRIDES = {
    "SERVELENS_DATA_DIR": ("data_dir",),
    "SERVELENS_MODELS_DIR": ("models_dir",),
    "SERVELENS_DATABASE_URL": ("database", "url"),
}


def load_settings(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read, complete and check the settings file; relative folders are relative to the file.

    Raises :class:`~servelens.errors.InvalidSettings`.
    """
    environment = os.environ if environment is None else environment
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidSettings(
            f"there is no file {path}.", fix="Name one with --config FILE, or see docs/settings.md."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(
            f"{path} cannot be read: {error}.", fix="Make it a readable UTF-8 file."
        ) from error
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidSettings(
            f"{path} is not YAML{yaml_mistake(error)}.", fix="Correct that line."
        ) from error
    if not isinstance(raw, dict):
        raise InvalidSettings(
            f"{path} must hold keys such as 'endpoints:'.", fix="See docs/settings.md for an example."
        )
    try:
        raw = _interpolated(raw, environment, "")
    except RecursionError as error:
        raise InvalidSettings(f"{path} has no end.", fix="Leave out what refers to itself.") from error
    for variable, keys in _OVERRIDES.items():
        if variable in environment:
            section = raw
            for key in keys[:-1]:
                section = section.setdefault(key, {})
            section[keys[-1]] = environment[variable]
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise _first_line(error, path) from error
    return _with_folders(settings, path.resolve().parent)


def yaml_mistake(error: yaml.YAMLError | ValueError | RecursionError) -> str:
    """Where it is and what it is, in one line. A ``ValueError`` is of a number or a date that is none, a
    ``RecursionError`` of too many brackets.

    >>> try:
    ...     yaml.safe_load("a: [1")
    ... except yaml.YAMLError as error:
    ...     yaml_mistake(error)
    " at line 1, column 6: expected ',' or ']', but got '<stream end>'"
    """
    mark = getattr(error, "problem_mark", None)
    where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0] or "it is not YAML"
    return f"{where}: {problem}"


def secrets_of_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables ``SERVELENS_SECRET_…``, to which references such as ``{{secrets/scope/key}}`` refer."""
    environment = os.environ if environment is None else environment
    return {name: value for name, value in environment.items() if name.startswith("SERVELENS_SECRET_")}


def check_folder(folder: Path, key: str) -> None:
    """Create ``folder`` and write a file in it, or raise InvalidSettings that names ``key``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidSettings(
            f"the folder {folder} cannot be written: {error.strerror or error}.",
            field=key,
            fix="Create it, or name another.",
        ) from error


def _with_folders(settings: Settings, base: Path) -> Settings:
    def resolved(folder: Path) -> Path:
        return (base / folder.expanduser()).resolve()

    tables_root = settings.tables.root
    if tables_root is not None and "://" not in tables_root:
        tables_root = str(resolved(Path(tables_root)))
    spool = settings.spool.directory
    updates: dict[str, Any] = {
        "data_dir": resolved(settings.data_dir),
        "models_dir": resolved(settings.models_dir),
        "spool": settings.spool.model_copy(update={"directory": resolved(spool) if spool else None}),
        "tables": settings.tables.model_copy(update={"root": tables_root}),
    }
    complete = settings.model_copy(update=updates)
    check_folder(complete.data_dir, "data_dir")
    check_folder(complete.spool_directory, "spool.directory")
    if "://" not in complete.tables_root:
        check_folder(Path(complete.tables_root), "tables.root")
    return complete


def _interpolated(value: Any, environment: Mapping[str, str], key: str) -> Any:
    if isinstance(value, dict):
        return {
            name: _interpolated(item, environment, f"{key}.{name}".strip(".")) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_interpolated(item, environment, f"{key}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if name in environment:
            return environment[name]
        if default is not None:
            return default
        raise InvalidSettings(
            f"the environment variable {name} is not set.",
            field=key,
            fix=f"Set {name}, or write ${{{name}:-default}}.",
        )

    return _VARIABLE.sub(replace, value)


def _first_line(error: ValidationError, path: Path) -> InvalidSettings:
    first, *others = error.errors(include_url=False)
    location = first["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).strip(".")
    more = f" ({len(others)} more after this.)" if others else ""
    prefix = f"{path.name}: {key}" if key else path.name
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Known keys here: {', '.join(known)}."
        return InvalidSettings("there is no such key.", field=prefix, fix=hint + more)
    if first["type"] == "missing":
        return InvalidSettings(
            "is missing.", field=prefix, fix="Add it; docs/settings.md says what it means." + more
        )
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        nested, _, rest = message.partition(": ")
        if rest and " " not in nested:
            prefix = f"{prefix}.{nested}" if key else f"{prefix}: {nested}"
            message = rest
        return InvalidSettings(message + more, field=prefix)
    if first["type"] == "string_pattern_mismatch":
        if first["ctx"]["pattern"] == NAME:
            return InvalidSettings(
                f"'{first['input']}' is not a name.",
                field=prefix,
                fix="Use letters, digits, '.', '_' and '-' only." + more,
            )
        return InvalidSettings(
            f"'{first['input']}' has another form.",
            field=prefix,
            fix=f"Write it as {_FORMS.get(str(location[-1]), 'docs/settings.md says')}." + more,
        )
    given = first["input"]
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    return InvalidSettings(f"{first['msg']}{shown}.", field=prefix, fix="Correct the value." + more)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, int):
            continue
        field = next(
            (field for name, field in model.model_fields.items() if part in (name, field.alias)),
            None,
        )
        nested = _model_in(field.annotation) if field else None
        if nested is None:
            return []
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
