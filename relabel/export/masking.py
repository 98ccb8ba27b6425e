"""Personal data in the texts of a case, replaced by placeholders such as ``<EMAIL_ADDRESS_1>``.

The same value has the same placeholder all through a case, so that an answer still refers to what was asked; another case
begins anew, so that a placeholder links nobody across a file. What counts as personal data is said by
:mod:`servelens.personal_data.detector`: names of people do not.

Invariant: what was JSON stays JSON. Arguments of tool calls are masked as the values they hold, and only then written again.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from relabel.export.labeled_case import LabeledCase
from servelens.personal_data.detector import PersonalData
from servelens.personal_data.found import Kind

_KEPT: Final = frozenset({"role", "type", "id", "tool_call_id", "source"})
"""Keys of messages and alternatives whose values are ours or the protocol's."""
_FILES: Final = frozenset({"url", "file_data"})
"""Keys of messages whose values may be whole files, as data URLs."""


class Masking:
    """Replaces personal data of ``kinds``; :attr:`replaced` counts the places by kind."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = frozenset(kinds)
        self._detector = PersonalData() if kinds else None
        self.replaced: Counter[str] = Counter()

    def masked(self, case: LabeledCase) -> LabeledCase:
        """The case with every text masked that an export may hold."""
        if self._detector is None:
            return case
        mask = _OneCase(self._detector, self._kinds, self.replaced)
        return dataclasses.replace(
            case,
            messages=mask.value(list(case.messages)),
            tools=None if case.tools is None else mask.value(list(case.tools)),
            alternatives=mask.value(list(case.alternatives)),
            corrected_answer=None if case.corrected_answer is None else mask.text(case.corrected_answer),
            comment=None if case.comment is None else mask.text(case.comment),
            tags=[mask.text(tag) for tag in case.tags],
            values=mask.value(dict(case.values), is_protocol=False),
        )


class _OneCase:
    def __init__(self, detector: PersonalData, kinds: frozenset[Kind], replaced: Counter[str]) -> None:
        self._detector = detector
        self._kinds = kinds
        self._replaced = replaced
        self._placeholders: dict[tuple[Kind, str], str] = {}
        self._numbers: Counter[Kind] = Counter()

    def text(self, text: str) -> str:
        parts, end = [], 0
        for found in self._detector.find(text):
            if found.kind in self._kinds:
                parts += [
                    text[end : found.start],
                    self._placeholder(found.kind, text[found.start : found.end]),
                ]
                end = found.end
        return "".join((*parts, text[end:])) if parts else text

    def value(self, value: Any, key: str = "", *, is_protocol: bool = True) -> Any:
        """JSON without personal data; ``is_protocol`` when the keys are the protocol's, and not somebody's own."""
        if isinstance(value, str):
            if is_protocol and (key in _KEPT or (key in _FILES and value.startswith("data:"))):
                return value
            return self._arguments(value) if is_protocol and key == "arguments" else self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(name): self._number(name, item)
                if _is_number(item)
                else self.value(item, name, is_protocol=is_protocol)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [
                self._number(key, item) if _is_number(item) else self.value(item, is_protocol=is_protocol)
                for item in value
            ]
        return value

    def _arguments(self, text: str) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text)
        masked = self.value(value, is_protocol=False)
        return text if masked == value else json.dumps(masked, ensure_ascii=False)

    def _number(self, key: str, number: float) -> Any:
        """A number as it would be found behind the name of its field, which may say what it is."""
        written = f"{number}"
        if len(written) < 7:
            return number
        before = f"{key.replace('_', ' ')}: "
        for found in self._detector.find(before + written):
            if found.kind in self._kinds and found.end == len(before + written):
                return self._placeholder(found.kind, written)
        return number

    def _placeholder(self, kind: Kind, value: str) -> str:
        self._replaced[kind] += 1
        known = (kind, "".join(filter(str.isalnum, value)).casefold())
        if known not in self._placeholders:
            self._numbers[kind] += 1
            self._placeholders[known] = f"<{kind}_{self._numbers[kind]}>"
        return self._placeholders[known]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
