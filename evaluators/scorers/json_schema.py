"""JSON schema: whether a text is JSON, and JSON of the wanted shape.

JSON is RFC 8259 as msgspec reads it: no NaN, no comments, nothing after the value. Schemas are those of
https://json-schema.org, in the draft that ``$schema`` names and 2020-12 otherwise, checked by ``jsonschema``.
``format`` is an annotation there, not a check.

Invariants. Nothing is fetched: a ``$ref`` leads to the schema itself or to a published meta-schema. The details
hold what the schema asks and where it is not so, never the values of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import jsonschema_specifications
import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from evaluators.evaluator import MODEL_ERROR, Score, Target, unscored
from evaluators.scorers.options import as_choice, as_target
from evaluators.scorers.rule import TextRule, installed_versions

_CODE: Final = "json-schema-1"
_FENCE: Final = "```"
_OPENING: Final = re.compile(r"```[A-Za-z0-9_+-]*[ \t\r]*")
_SHOWN: Final = 200
_LOOKED_AT: Final = 20
"""So many errors are looked at to show the one that says most."""


class JsonSchema(TextRule):
    """1 and ``valid``; 0 and ``invalid_json`` or ``invalid_schema``."""

    def __init__(
        self,
        *,
        target: Target = "response",
        schema: Mapping[str, Any] | bool | None = None,
        fenced: str = "forbid",
    ) -> None:
        """``schema``: ``None`` asks for any JSON. ``fenced``: ``allow`` takes a text that is one Markdown code block,
        too. Raises ``ValueError`` for a schema that is none."""
        options = {
            "schema": schema,
            "fenced": fenced,
            "libraries": installed_versions("jsonschema", "msgspec"),
        }
        super().__init__("json_schema", target=target, model="JSON schema", code=_CODE, options=options)
        self._decode = msgspec.json.Decoder().decode
        self._validator = None if schema is None else _validator(schema)
        self._takes_fences = fenced == "allow"

    def _score_text(self, text: str) -> Score:
        if self._takes_fences:
            text = _unfenced(text)
        try:
            value = self._decode(text)
        except msgspec.DecodeError as error:
            return Score(0.0, "invalid_json", details={"error": str(error)[:_SHOWN]})
        except RecursionError:
            return Score(0.0, "invalid_json", details={"error": "nested too deep"})
        if self._validator is None:
            return Score(1.0, "valid")
        try:
            worst = best_match(islice(self._validator.iter_errors(value), _LOOKED_AT))
        except (Unresolvable, RecursionError) as failure:
            return unscored(MODEL_ERROR, error=f"{type(failure).__name__}: {failure}"[:_SHOWN])
        if worst is None:
            return Score(1.0, "valid")
        asked = json.dumps(worst.validator_value, ensure_ascii=False)
        return Score(
            0.0,
            "invalid_schema",
            details={"path": worst.json_path[:_SHOWN], "rule": f"{worst.validator}: {asked}"[:_SHOWN]},
        )


def build(
    *,
    target: Target = "response",
    schema: Mapping[str, Any] | bool | None = None,
    schema_file: str | None = None,
    fenced: str = "forbid",
) -> JsonSchema:
    """What the settings call ``json_schema``."""
    if schema is not None and schema_file is not None:
        raise ValueError("give schema or schema_file, not both.")
    return JsonSchema(
        target=as_target(target),
        schema=_read(schema_file) if schema_file is not None else schema,
        fenced=as_choice("fenced", fenced, ("allow", "forbid")),
    )


def _unfenced(text: str) -> str:
    """What is in the one code block that ``text`` is; else ``text``."""
    first, found, rest = text.strip().partition("\n")
    if not found or _OPENING.fullmatch(first) is None or not rest.endswith(_FENCE):
        return text
    return rest.removesuffix(_FENCE)


def _read(schema_file: object) -> Any:
    if not isinstance(schema_file, str) or not schema_file:
        raise ValueError(f"schema_file is the path of a file, not {schema_file!r}.")
    try:
        return json.loads(Path(schema_file).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"schema_file {schema_file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"schema_file {schema_file} is not JSON: {error}.") from error


def _validator(schema: object) -> Any:
    if not isinstance(schema, Mapping | bool):
        raise ValueError(f"schema is an object (or true or false), not {schema!r}.")
    if isinstance(schema, Mapping) and "$schema" in schema and validator_for(schema, default=None) is None:
        raise ValueError(
            f"schema: there is no draft {schema['$schema']!r} of JSON schema that is known here."
        )
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"schema is no JSON schema: {error.message} (at {error.json_path}).") from error
    registry: Registry[Any] = jsonschema_specifications.REGISTRY
    _refuse_unknown_references(schema, registry)
    return kind(schema, registry=registry)


def _refuse_unknown_references(schema: Any, registry: Registry[Any]) -> None:
    """``ValueError`` for a reference that leads nowhere. Not looked for where parts of the schema have addresses of
    their own; there it shows when a text needs it."""
    if any(isinstance(identifier, str) for identifier in _values(schema, "$id")):
        return
    resolver = registry.with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _values(schema, "$ref"):
        try:
            if isinstance(reference, str):
                resolver.lookup(reference)
        except Unresolvable as error:
            raise ValueError(
                f"schema: $ref {reference!r} leads to nothing in it, and nothing is fetched. Put it under $defs."
            ) from error


def _values(schema: Any, name: str) -> Iterator[Any]:
    """The values of all keys ``name`` in ``schema``."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == name:
                yield value
            yield from _values(value, name)
    elif isinstance(schema, list):
        for value in schema:
            yield from _values(value, name)
