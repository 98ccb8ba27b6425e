"""Generates ``docs/settings.md`` from the settings' own descriptions, so that page and code cannot part.

``python -m servelens.reference`` writes the page; ``--check`` fails when it is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from servelens.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

_HEAD = """# Settings

*Generated from `servelens/settings.py` by `python -m servelens.reference`; do not edit.*

Everything is configured in one file, `servelens.yaml`, which every command reads (`--config FILE` names another). A wrong
key, a split that does not add up to 100 or a folder that cannot be written ends the command with status 2 and one line
that names the key and the fix.

Any string may hold `${NAME}` or `${NAME:-default}`, taken from the environment: keep secrets there.
`SERVELENS_DATA_DIR`, `SERVELENS_MODELS_DIR` and `SERVELENS_DATABASE_URL` override `data_dir`, `models_dir` and `database.url`.
Relative folders are relative to the file.

The smallest useful file:

```yaml
endpoints:
  - name: chat
    config:
      served_entities:
        - name: my-model
          backend: {urls: ["http://127.0.0.1:8000"]}
```
"""


def settings_page() -> str:
    """The whole page as Markdown."""
    return _HEAD + "\n" + "\n".join(_sections(Settings, "")) + "\n"


def _sections(model: type[BaseModel], path: str) -> list[str]:
    lines = [f"## `{path}`" if path else "## Top level", "", (model.__doc__ or "").strip(), ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    nested: list[str] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        section, many = _section_of(field.annotation)
        kind = (
            "section"
            if section and not many
            else "list of sections"
            if section
            else _type_name(field.annotation)
        )
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{key}` | {kind}{_bounds(field)} | {_default(field)} | {meaning} |")
        if section:
            nested += ["", *_sections(section, f"{path}.{key}".strip(".") + ("[]" if many else ""))]
    return lines + nested


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        found, _ = _section_of(argument)
        if found is not None:
            return found, get_origin(annotation) is list
    return None, False


def _type_name(annotation: Any) -> str:
    names = {"Path": "folder", "SecretStr": "secret text", "str": "text", "int": "integer", "float": "number"}
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return names.get(annotation.__name__, annotation.__name__)
    if str(get_origin(annotation)) == "typing.Literal":
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "mapping"
    parts = [argument for argument in get_args(annotation) if argument is not type(None)]
    return _type_name(parts[0]) if parts else "any"


def _bounds(field: FieldInfo) -> str:
    signs = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}
    found = [
        f"{sign}{getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return f", {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` compare it; returns the exit status."""
    page = settings_page()
    if arguments == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
            sys.stderr.write("docs/settings.md is out of date: run python -m servelens.reference\n")
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
