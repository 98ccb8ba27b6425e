"""What a judge is asked and how: the options of the settings file, checked once and never changed.

Invariant: :attr:`JudgeOptions.version` is a hash of all that can change a grade (address, model, question, scale, the way
of asking) and of nothing else; the key is not in it, in no message and in no ``repr``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from evaluators.evaluator import Target
from servelens.errors import Invalid

Structured: TypeAlias = Literal["json_schema", "json_object", "none"]

HERE: Final = "evaluators[judge]"
# Grows when the prompt or the reading of answers changes so that the same text could get another grade.
_CODE_VERSION: Final = 1
_NAME: Final = re.compile(r"judge(?:[._-][A-Za-z0-9][A-Za-z0-9_.-]{0,50})?")
_CRITERION: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,50}")
_RESERVED: Final = frozenset(
    {"explanation", "tokens_in", "tokens_out", "cost", "samples", "spread", "structured"}
)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question of several; ``weight`` is its share in the score, relative to the others'."""

    name: str
    description: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """Checked options; how to write them: docs/judge.md. Either ``scale`` or ``labels`` grades, never both."""

    name: str
    url: str
    model: str
    api_key: str | None = field(repr=False)
    target: Target
    rubric: str | None
    criteria: tuple[Criterion, ...]
    scale: tuple[float, float] | None
    labels: Mapping[str, float] | None
    threshold: float | None
    temperature: float | None
    max_tokens: int | None
    extra_body: Mapping[str, Any]
    structured: Structured
    samples: int
    max_characters: int
    timeout_s: float
    concurrency: int
    retries: int

    @property
    def grades(self) -> tuple[str, ...]:
        """The names under which the judge gives its grades: one, or one for each criterion."""
        return tuple(each.name for each in self.criteria) or ("label" if self.labels else "score",)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest grade."""
        if self.labels:
            return min(self.labels.values()), max(self.labels.values())
        assert self.scale is not None
        return self.scale

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits."""
        counted = {
            "code": _CODE_VERSION,
            "url": self.url,
            "model": self.model,
            "target": self.target,
            "rubric": self.rubric,
            "criteria": [[each.name, each.description, each.weight] for each in self.criteria],
            "scale": self.scale,
            "labels": None if self.labels is None else dict(self.labels),
            "threshold": self.threshold,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "extra_body": dict(self.extra_body),
            "structured": self.structured,
            "samples": self.samples,
        }
        return sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:12]


def checked(
    *,
    name: str,
    url: str,
    model: str,
    api_key: str | None,
    target: str,
    rubric: str | None,
    criteria: Sequence[Mapping[str, Any]] | None,
    scale: Sequence[float] | None,
    labels: Mapping[str, float] | None,
    threshold: float | None,
    temperature: float | None,
    max_tokens: int | None,
    extra_body: Mapping[str, Any] | None,
    structured: str,
    samples: int,
    max_characters: int,
    timeout_s: float,
    concurrency: int,
    retries: int,
) -> JudgeOptions:
    """The options as they were written. Raises :class:`~servelens.errors.Invalid`, which names the option."""
    if not _NAME.fullmatch(name):
        raise _invalid(
            "name", f"{name!r} is no name of a judge", "Use judge, or for example judge.helpfulness."
        )
    if target not in ("request", "response"):
        raise _invalid("target", f"it is request or response, not {target!r}")
    if structured not in ("json_schema", "json_object", "none"):
        raise _invalid("structured", f"it is json_schema, json_object or none, not {structured!r}")
    if not isinstance(model, str) or not model.strip():
        raise _invalid("model", "it is empty", "Name the model to send.")
    if api_key is not None and not _fits_header(api_key):
        raise _invalid(
            "api_key",
            "it is empty, or has a character that no header takes, such as a line break at its end",
            "Use ${NAME}.",
        )
    named = _criteria(criteria)
    if not named and (not isinstance(rubric, str) or not rubric.strip()):
        raise _invalid("rubric", "there is neither a rubric nor criteria", "Say what makes an answer good.")
    if scale is not None and labels is not None:
        raise _invalid("labels", "there is a scale as well", "Give one of the two.")
    values = None if labels is None else _labels(labels)
    span = None if values is not None else _scale((1, 5) if scale is None else scale)
    low, high = span if span is not None else (min(values.values()), max(values.values()))  # type: ignore[union-attr]
    if threshold is not None and not low <= _number("threshold", threshold) <= high:
        raise _invalid("threshold", f"{threshold:g} is not between {low:g} and {high:g}")
    if temperature is not None and not 0 <= _number("temperature", temperature) <= 2:
        raise _invalid("temperature", f"{temperature:g} is not between 0 and 2")
    if samples > 1 and not temperature:
        raise _invalid(
            "samples", "at temperature 0 all samples are the same", "Set temperature: 0.7, or samples: 1."
        )
    for option, number, least, most in (
        ("samples", samples, 1, 25),
        ("max_characters", max_characters, 100, 10_000_000),
        ("concurrency", concurrency, 1, 256),
        ("retries", retries, 0, 20),
        ("max_tokens", 1 if max_tokens is None else max_tokens, 1, 1_000_000),
    ):
        if not isinstance(number, int) or not least <= number <= most:
            raise _invalid(option, f"it is a whole number of {least} to {most}, not {number!r}")
    if not 0 < _number("timeout_s", timeout_s) <= 3600:
        raise _invalid("timeout_s", f"{timeout_s:g} seconds is no time-out", "Use more than 0, at most 3600.")
    return JudgeOptions(
        name=name,
        url=_address(url),
        model=model,
        api_key=api_key,
        target="request" if target == "request" else "response",
        rubric=rubric,
        criteria=named,
        scale=span,
        labels=values,
        threshold=threshold,
        temperature=temperature,
        max_tokens=max_tokens,
        extra_body=dict(extra_body or {}),
        structured="json_schema"
        if structured == "json_schema"
        else "json_object"
        if structured == "json_object"
        else "none",
        samples=samples,
        max_characters=max_characters,
        timeout_s=timeout_s,
        concurrency=concurrency,
        retries=retries,
    )


def _fits_header(api_key: object) -> bool:
    # A line break at its end, say: the error of who sends it would quote the key.
    return (
        isinstance(api_key, str)
        and api_key.isascii()
        and api_key.isprintable()
        and api_key == api_key.strip() != ""
    )


def _address(url: str) -> str:
    """The base URL without a slash at its end; a key in it would end in logs and in the version."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise _invalid("url", f"{url!r} is no address", "Write the base URL: https://host/v1")
    if parts.username is not None or parts.password is not None or parts.query:
        raise _invalid("url", "it holds a user, a password or a query", "Put the key into api_key: ${NAME}")
    return url.rstrip("/").removesuffix("/chat/completions")


def _criteria(criteria: Sequence[Mapping[str, Any]] | None) -> tuple[Criterion, ...]:
    found: list[Criterion] = []
    for index, each in enumerate(criteria or ()):
        place = f"criteria[{index}]"
        if not isinstance(each, Mapping) or not {"name", "description"} <= each.keys() <= {
            "name",
            "description",
            "weight",
        }:
            raise _invalid(place, "it has a name, a description and perhaps a weight")
        name, description = each["name"], each["description"]
        if not isinstance(name, str) or not _CRITERION.fullmatch(name) or name in _RESERVED:
            raise _invalid(
                f"{place}.name", f"{name!r} is no name", "Use letters, digits and _, such as accuracy."
            )
        if not isinstance(description, str) or not description.strip():
            raise _invalid(f"{place}.description", "it is empty")
        weight = _number(f"{place}.weight", each.get("weight", 1.0))
        if weight <= 0:
            raise _invalid(f"{place}.weight", f"{weight:g} is not above 0")
        if name in {other.name for other in found}:
            raise _invalid(f"{place}.name", f"there are two of {name!r}")
        found.append(Criterion(name, description, weight))
    return tuple(found)


def _scale(scale: Sequence[float]) -> tuple[float, float]:
    if not isinstance(scale, Sequence) or len(scale) != 2:
        raise _invalid("scale", f"it is two numbers, not {scale!r}", "Write [1, 5].")
    low, high = (_number("scale", bound) for bound in scale)
    if not low < high:
        raise _invalid("scale", f"{low:g} is not below {high:g}")
    return low, high


def _labels(labels: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(labels, Mapping) or len(labels) < 2:
        raise _invalid("labels", "there are not two of them", "Write {good: 1, bad: 0}.")
    if not all(isinstance(label, str) and label.strip() for label in labels):
        raise _invalid(
            "labels", "a label is no word", "Put it in quotes: yes, no, on and off are not words in YAML."
        )
    return {label: _number(f"labels.{label}", value) for label, value in labels.items()}


def _number(option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(option, f"{value!r} is no number")
    return value


def _invalid(option: str, message: str, fix: str | None = None) -> Invalid:
    return Invalid(message, field=f"{HERE}.{option}", fix=fix)
