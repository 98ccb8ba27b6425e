"""Training and test set without leakage.

Guarantee: two labeled cases of one unit (or session), or that ask the same (:mod:`relabel.export.prompt_text`), or of which
one goes on where the answer of the other ends, are never in different sets, nor are two that are linked by a chain of such
cases. Texts are compared as they were recorded: where masking makes two the same, they may be in both sets. The set of a
case depends on the labels up to
``as_of``, the endpoints and the split alone: neither the format nor another filter moves it, so that what one export
trains on is not in another's test set.

Cases so linked are a group. A group goes to the test set when a hash of the seed and the smallest of its keys falls under
the share, so the share is met on average over groups, not exactly. Memory: some 600 bytes a case.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

from relabel.export.prompt_text import key_of, prompt_key, turn_keys
from relabel.export.query import Split
from relabel.export.reader import Asked

TRAIN: Final = "train"
TEST: Final = "test"
SPLITS: Final = (TRAIN, TEST)

_PROMPT: Final = 1 << 63
"""Keys of prompts are larger than those of units, so that a new question of a unit does not move all that it asked."""


class SplitOfCases:
    """Which set each case is in. ``asked`` are all cases that may be asked for."""

    def __init__(self, split: Split, asked: Iterable[Asked]) -> None:
        self._split = split
        groups = _Groups()
        prompts: dict[int, int] = {}
        answered: dict[int, int] = {}  # the prompt of a case by all that was said with the answer
        followed = array("Q")  # in turn a prompt, and all that was said up to an answer in it
        self._without_owner = 0
        for case in asked:
            prompt = _prompt_of(case, answered, followed)
            prompts[case.case_id] = prompt
            owner = _owner(case, split)
            if owner is None:
                self._without_owner += split.by != "case"
                groups.add(prompt)
            else:
                groups.join(owner, prompt)
        for prompt, turn in zip(followed[::2], followed[1::2], strict=True):
            if turn in answered:
                groups.join(answered[turn], prompt)
        self._group_of = {case_id: groups.smallest(prompt) for case_id, prompt in prompts.items()}

    def of(self, case_id: int) -> str:
        """``train`` or ``test``."""
        return TEST if self._value(self._group_of[case_id]) < self._split.test else TRAIN

    def report(self) -> dict[str, Any]:
        """How many groups there are, how many cases the largest has, and how many cases had no unit (or session), so that
        only their prompt says what they belong with.
        """
        sizes = Counter(self._group_of.values())
        return {
            "groups": len(sizes),
            "largest_group": max(sizes.values(), default=0),
            "cases": len(self._group_of),
            "cases_without_owner": self._without_owner,
        }

    def _value(self, group: int) -> float:
        digest = blake2b(f"{self._split.seed}|{group}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64


class _Groups:
    """Disjoint sets of 64-bit keys; a set is told by its smallest key, in whatever order it came together."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def add(self, key: int) -> None:
        self._parent.setdefault(key, key)

    def join(self, one: int, other: int) -> None:
        self.add(one)
        self.add(other)
        smaller, larger = sorted((self.smallest(one), self.smallest(other)))
        self._parent[larger] = smaller

    def smallest(self, key: int) -> int:
        root = key
        while (parent := self._parent[root]) != root:
            root = parent
        while key != root:  # shortens the way for the next one
            self._parent[key], key = root, self._parent[key]
        return root


def _prompt_of(case: Asked, answered: dict[int, int], followed: array[int]) -> int:
    keys = turn_keys(case.messages)
    before = keys[:-1] if case.answered else keys
    prompt = _PROMPT | (before[-1] if before else prompt_key(())) >> 1
    if case.answered:
        answered.setdefault(keys[-1], prompt)
    for key, message in zip(before, case.messages, strict=False):
        if message.get("role") == "assistant":
            followed.extend((prompt, key))
    return prompt


def _owner(case: Asked, split: Split) -> int | None:
    if split.by == "case":
        return None
    order = (("unit", case.unit), ("session", case.session))
    for name, value in order if split.by == "unit" else reversed(order):
        if value:
            return key_of(f"{name}\0{value}") >> 1
    return None
