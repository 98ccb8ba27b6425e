"""Leaves out what a case before has given already.

``exact``: the same example, to the byte. ``near``: an example of a case that asks the same (see
:mod:`relabel.export.prompt_text`) as one that has given examples; the first in the order of cases stays. Memory: some 60
bytes an example.
"""

from __future__ import annotations

from hashlib import blake2b

from relabel.export.labeled_case import LabeledCase
from relabel.export.prompt_text import prompt_key
from relabel.export.query import Dedupe


class Seen:
    """What has been given so far; ``how`` is ``None`` where everything is new."""

    def __init__(self, how: Dedupe | None) -> None:
        self._how = how
        self._given: set[int] = set()

    def repeats_case(self, case: LabeledCase) -> bool:
        """Whether all that the case can give is a repetition."""
        return self._how == "near" and prompt_key(case.asked) in self._given

    def repeats(self, line: bytes) -> bool:
        """Whether this example is one; from now on it is."""
        if self._how != "exact":
            return False
        key = int.from_bytes(blake2b(line, digest_size=8).digest())
        if key in self._given:
            return True
        self._given.add(key)
        return False

    def gave(self, case: LabeledCase) -> None:
        """The case has given an example."""
        if self._how == "near":
            self._given.add(prompt_key(case.asked))
