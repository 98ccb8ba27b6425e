"""The JSON paths that settings use to name values, and where the same values are in an answer that is streamed.

A subset of RFC 9535 (https://www.rfc-editor.org/rfc/rfc9535): the root ``$``, then any number of ``.name``,
``['name']``, ``[*]`` (every element of an array and every member of an object), ``[n]`` and ``..name`` (members of
that name at any depth). Filters, slices, negative indexes, unions and ``.*`` are refused rather than misread.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from servelens.errors import InvalidSettings

_STEP: Final = re.compile(
    r"""
    (?P<below>\.\.(?!\.))?
    (?: (?(below)|\.)(?P<name>[^\W\d]\w*)
      | \[\s*(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)")\s*\]
      | \[\s*(?P<any>\*)\s*\]
      | \[\s*(?P<index>0|[1-9]\d{0,8})\s*\]
    )""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_SUPPORTED: Final = "Use $ followed by .name, ['name'], [*], [n] or ..name, such as $.messages[*].content."


class Step(NamedTuple):
    """One step down: to the member ``name``, to element ``number``, or with neither to all children. ``below``: at any
    depth. ``text_only``: only where the value is a string.
    """

    name: str | None = None
    number: int | None = None
    below: bool = False
    text_only: bool = False


Path = tuple[Step, ...]


def parse_path(text: str) -> Path:
    """The steps of a path. Raises InvalidSettings that names the path when it is not in the subset."""
    steps: list[Step] = []
    position = 1
    while text.startswith("$") and position < len(text):
        match = _STEP.match(text, position)
        if match is None or (match["below"] and (match["any"] or match["index"])):
            raise _unsupported(text)
        quoted = match["single"] if match["single"] is not None else match["double"]
        name = match["name"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        index = match["index"]
        steps.append(Step(name, None if index is None else int(index), match["below"] is not None))
        position = match.end()
    if not steps:
        raise _unsupported(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _unsupported(text) from error
    return tuple(steps)


def _unsupported(text: str) -> InvalidSettings:
    return InvalidSettings(
        f"{text!r} is not a path that can be redacted", field="redact_paths", fix=_SUPPORTED
    )


_TEXTS: Final = ("text", "refusal", "arguments", "thinking", "input", "partial_json")
_DELTA: Final = Step("delta")
_DELTA_TEXT: Final = Step("delta", text_only=True)


def streamed_paths(path: Path) -> list[Path]:
    """Where the values of ``path`` in a whole answer are in the events of the same answer as a stream.

    Chat completions: ``message`` comes as ``delta``. Anthropic messages: a block of ``content`` comes as
    ``content_block`` and ``delta``. Responses: ``output`` comes as ``item`` and ``part``, and its texts as the strings
    ``delta``, ``text``, ``refusal`` and ``arguments``; the head of the answer comes as ``response`` or ``message``. Where a path
    ends above a text, all that belongs to it is named, rather too much than too little; ``[n]`` is every element, since
    events come with one element each.
    """
    path = tuple(step._replace(number=None) for step in path)
    found = [path, (Step("response"), *path), (Step("message"), *path)]
    for position, step in enumerate(path):
        rest = path[position + 1 :]
        if step.name == "message":
            found.append((*path[:position], step._replace(name="delta"), *rest))
        is_root = position == 0 or step.below
        if step.name in ("content", "output", "summary") and (is_root or path[0].name == "output"):
            while rest and rest[0].name is None:
                rest = rest[1:]
            found += [(Step(name), *rest) for name in ("content_block", "item", "part")]
            found += _parts_of_deltas(rest)
        elif step.below and step.name in _TEXTS:
            found += _parts_of_deltas((Step(step.name), *rest))
        elif step.below and step.name == "message":
            found += [(Step("delta", below=True), *rest)]
    return list(dict.fromkeys(found))


def _parts_of_deltas(rest: Path) -> list[Path]:
    """What of the deltas of a text belongs to ``rest`` below its block."""
    while rest and rest[0].name in (None, "content", "summary"):
        rest = rest[1:]
    if not rest:
        return [(_DELTA,), *((Step(name, text_only=True),) for name in _TEXTS)]
    name = rest[0].name
    if name == "input":
        return [(_DELTA, Step("partial_json"))]
    if name in _TEXTS:
        return [(_DELTA, Step(name)), (_DELTA_TEXT,), (Step(name, text_only=True),)]
    return [(_DELTA, *rest)]
