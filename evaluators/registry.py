"""Names of evaluators and how each is built from its stored form.

An :class:`EvaluatorSpec` is plain data: it can be kept in a settings file or a table and rebuilt anywhere.
Built in is what the table below names; docs/evaluators.md says what each does. A third party adds its own by
an entry point in the group ``servelens.evaluators``, which names a callable with keyword parameters:
``models_dir``, a ``Path``, if it has a parameter of that name, and the options::

    [project.entry-points."servelens.evaluators"]
    shouting = "my_package:ShoutingEvaluator"

A built-in name cannot be taken. Nothing is imported for an evaluator before it is built.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from evaluators.evaluator import Evaluator
from servelens.errors import Invalid, Missing, ServelensError

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

GROUP: Final = "servelens.evaluators"
_PREPARE: Final = "Run: servelens models prepare"


@dataclass(frozen=True, slots=True)
class EvaluatorSpec:
    """Which evaluator, with which options (keyword arguments that JSON can hold)."""

    name: str
    options: Mapping[str, JSON] = field(default_factory=dict)

    def to_json(self) -> str:
        """The stored form."""
        return json.dumps({"name": self.name, "options": dict(self.options)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> EvaluatorSpec:
        """``Invalid`` when ``text`` is not a stored form."""
        try:
            stored = json.loads(text)
            name, options = stored["name"], stored["options"]
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"not a stored evaluator: {error}", field="evaluator") from error
        if not isinstance(name, str) or not isinstance(options, dict):
            raise Invalid("a stored evaluator has a name and an object of options.", field="evaluator")
        return cls(name, options)


# Named, not imported: naming an evaluator costs no torch, and a missing extra is reported where it is used.
_BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "classifier": "evaluators.scorers.text_classification:build",
        "embedding": "evaluators.scorers.embedding:build",
        "error": "evaluators.scorers.error:build",
        "json_schema": "evaluators.scorers.json_schema:build",
        "judge": "evaluators.judge.build:build",
        "language": "evaluators.scorers.language:build",
        "latency": "evaluators.scorers.latency:build",
        "length": "evaluators.scorers.length:build",
        "pattern": "evaluators.scorers.pattern:build",
        "perplexity": "evaluators.scorers.perplexity:build",
        "personal_data": "evaluators.scorers.personal_data:build",
        "refusal": "evaluators.scorers.refusal:build",
        "toxicity": "evaluators.scorers.toxicity:build",
    }
)


def known_evaluators() -> list[str]:
    """All names that :func:`build` takes, sorted."""
    return sorted({*_BUILT_IN, *(entry.name for entry in metadata.entry_points(group=GROUP))})


def build(spec: EvaluatorSpec, models_dir: Path) -> Evaluator:
    """The evaluator, its model loaded.

    ``Invalid``: no such evaluator, an option it does not have or a value that it refuses, or what an entry
    point gives is no evaluator. ``Missing``: a model or a Python package is not there.
    """
    here = f"evaluators[{spec.name}]"
    try:
        factory = _factory(spec.name, here)
        arguments = _arguments(factory, spec, models_dir, here)
        evaluator = factory(**arguments)
    except ServelensError:
        raise
    except ImportError as error:
        extra = "mlflow" if (error.name or "").startswith("mlflow") else "evaluators"
        raise Missing(
            f"it needs the Python package {error.name}.",
            field=here,
            fix=f"Install it: pip install 'servelens[{extra}]'",
        ) from error
    except OSError as error:
        raise Missing(
            f"its model cannot be loaded: {error}",
            field=here,
            fix=f"Check the model's name or folder. {_PREPARE}",
        ) from error
    except (ValueError, TypeError) as error:
        raise Invalid(str(error), field=here) from error
    if not isinstance(evaluator, Evaluator):
        raise Invalid(
            f"its entry point gave a {type(evaluator).__name__}, which is no evaluator.", field=here
        )
    return evaluator


def _factory(name: str, here: str) -> Callable[..., Any]:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: Callable[..., Any] = getattr(import_module(module), attribute)
        return built_in
    found = list(metadata.entry_points(group=GROUP, name=name))
    if not found:
        raise Invalid(
            f"there is no evaluator {name!r}.",
            field="evaluators",
            fix=f"Known are: {', '.join(known_evaluators())}.",
        )
    if len(found) > 1:
        owners = ", ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in found))
        raise Invalid(
            f"several packages bring an evaluator of this name: {owners}.",
            field=here,
            fix="Uninstall all but one.",
        )
    try:
        factory = found[0].load()
    except (ImportError, AttributeError) as error:
        raise Invalid(f"its entry point {found[0].value} cannot be imported: {error}", field=here) from error
    if not callable(factory):
        raise Invalid(f"its entry point {found[0].value} is not callable.", field=here)
    return factory  # type: ignore[no-any-return]


def _arguments(
    factory: Callable[..., Any], spec: EvaluatorSpec, models_dir: Path, here: str
) -> dict[str, JSON | Path]:
    parameters = inspect.signature(factory).parameters
    arguments: dict[str, JSON | Path] = dict(spec.options)
    if "models_dir" in parameters:
        arguments["models_dir"] = models_dir
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if takes_any else sorted(arguments.keys() - parameters.keys())
    known = ", ".join(name for name in parameters if name != "models_dir")
    if unknown or "models_dir" in spec.options:
        raise Invalid(
            f"unknown option {(unknown or ['models_dir'])[0]!r}.",
            field=here,
            fix=f"Its options are: {known}.",
        )
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise Invalid(f"{error}.", field=here, fix=f"Its options are: {known}.") from error
    return arguments
