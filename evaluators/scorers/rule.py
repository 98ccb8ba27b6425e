"""What the evaluators that are rules have in common: no weights, one text at a time, on any processor.

Invariant: ``version`` is a digest of the rule's code name, everything it reads beside the text (word lists, the
versions of libraries) and its options, so two scores of one version are comparable.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import metadata

from evaluators.evaluator import EMPTY, Score, Target, Text, target_text, unscored


class Rule(ABC):
    """An :class:`~evaluators.evaluator.Evaluator` that scores text by text."""

    device = "cpu"

    def __init__(
        self, name: str, *, target: Target, model: str, code: str, options: Mapping[str, object]
    ) -> None:
        """``model``: what is shown as the model. ``code``: changes whenever the rule scores otherwise. ``options``:
        what JSON can hold."""
        self.name = name
        self.target: Target = target
        self.model = model
        written = json.dumps([code, target, options], sort_keys=True, ensure_ascii=True, default=list)
        self.version = hashlib.blake2b(written.encode(), digest_size=6).hexdigest()

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """One score per text, in the order of ``batch``."""
        return [self._score(text) for text in batch]

    @abstractmethod
    def _score(self, text: Text) -> Score:
        """The score of one record. Must not raise because of it."""


class TextRule(Rule):
    """A rule that looks at the target's text alone."""

    def _score(self, text: Text) -> Score:
        chosen = target_text(text, self.target)
        return unscored(EMPTY) if chosen is None else self._score_text(chosen)

    @abstractmethod
    def _score_text(self, text: str) -> Score:
        """The score of a text that is more than white space."""


def installed_versions(*distributions: str) -> str:
    """The installed versions of ``distributions``, for a rule's version."""
    return " ".join(f"{name}-{metadata.version(name)}" for name in distributions)
