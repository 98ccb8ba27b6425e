"""``servelens relabel schema``: label schemas in the database, for the user of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from relabel.schema_definition import parse_schema
from relabel.schema_store import SchemaStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.label_schemas import open_schema_store
from servelens.clock import SystemClock
from servelens.errors import Conflict, Invalid, Missing
from servelens.processes.person import user
from servelens.settings_file import load_settings, yaml_mistake


def show(config: Path, endpoint: str, version: int | None, *, as_json: bool) -> int:
    """The definition on standard output."""
    with _opened(config, endpoint) as store:
        stored = store.get(endpoint, version).to_dict()
    if as_json:
        sys.stdout.write(json.dumps(stored, indent=2) + "\n")
        return 0
    source = {"default": "the default", "file": "from the settings file", "api": "set by API or command"}
    sys.stdout.write(f"# {endpoint}, version {stored['version']}, {source[stored['source']]}\n")
    sys.stdout.write(yaml.safe_dump(stored["schema"], sort_keys=False, allow_unicode=True, width=120))
    return 0


def set_schema(config: Path, file: Path, endpoint: str | None, if_version: int | None) -> int:
    """Say which version it is."""
    named, definition = _read(file)
    if endpoint is not None and named is not None and endpoint != named:
        raise Invalid(
            f"{file} is for the endpoint {named!r}", field="--endpoint", fix="Leave one of the two out."
        )
    name = endpoint or named
    if name is None:
        raise Invalid(
            "it is missing", field="--endpoint", fix="Name the endpoint, or write it into the file."
        )
    parse_schema(definition)  # before anything is opened
    with _opened(config, name) as store:
        before = store.get(name).schema.version
        try:
            schema = store.put(name, definition, by=user() or "command line", expected_version=if_version)
        except Conflict as error:
            if if_version is None:
                raise
            raise Conflict(error.message, field="--if-version", fix=error.fix) from error
    changed = "is asked from now on" if schema.version != before else "is what is asked already"
    sys.stdout.write(f"{name}: version {schema.version} {changed}.\n")
    return 0


def check(file: Path) -> int:
    """Say what it is."""
    _, definition = _read(file)
    schema = parse_schema(definition)
    fields = ", ".join(f"{field.name} ({field.type})" for field in schema.fields)
    sys.stdout.write(f"{file} is a label schema: {fields}.\n")
    return 0


@contextmanager
def _opened(config: Path, endpoint: str) -> Iterator[SchemaStore]:
    settings = load_settings(config)
    database = build_database(settings)
    try:
        known = [each.name for each in open_endpoint_store(settings, database, SystemClock()).all()]
        if endpoint not in known:
            raise Missing(
                f"there is no endpoint '{endpoint}'",
                field="--endpoint",
                fix=f"Use one of: {', '.join(known)}.",
            )
        yield open_schema_store(settings, database, SystemClock())
    finally:
        database.dispose()


def _read(file: Path) -> tuple[str | None, dict[str, Any]]:
    """The endpoint that the file names, if it does, and the definition."""
    try:
        text = file.read_text(encoding="utf-8")
        block = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise Invalid(f"{file} is not JSON: {error}", fix="Correct that line.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"{file} is not YAML{yaml_mistake(error)}.", fix="Correct that line.") from error
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error}.") from error
    if not isinstance(block, dict):
        raise Invalid(
            f"{file} must hold keys such as 'fields:'.", fix="Write one block of 'relabel.schemas'."
        )
    endpoint = block.pop("endpoint", None)
    if endpoint is not None and not isinstance(endpoint, str):
        raise Invalid(f"{endpoint!r} is no name"[:200], field="endpoint", fix="Write it in quotes.")
    return endpoint, block
