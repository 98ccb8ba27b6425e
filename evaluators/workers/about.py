"""What an evaluator in another process says of itself, and how that makes an :class:`~evaluators.evaluator.Evaluator` here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from evaluators.evaluator import Target


@dataclass(frozen=True, slots=True)
class About:
    """What the evaluator says of itself once it is built."""

    name: str
    version: str
    model: str
    target: Target
    device: str
    columns: tuple[str, ...]


class Elsewhere(ABC):
    """The properties of an evaluator that runs elsewhere. ``scores_as`` is another name for its scores."""

    def __init__(self, scores_as: str | None) -> None:
        self._scores_as = scores_as

    @property
    @abstractmethod
    def about(self) -> About:
        """What the evaluator says of itself; starts it if need be, and raises what that raises."""

    @property
    def name(self) -> str:
        """Of its scores: the evaluator's, or ``scores_as``."""
        return self._scores_as or self.about.name

    @property
    def version(self) -> str:
        """The evaluator's."""
        return self.about.version

    @property
    def model(self) -> str:
        """The evaluator's."""
        return self.about.model

    @property
    def target(self) -> Target:
        """The evaluator's."""
        return self.about.target

    @property
    def columns(self) -> tuple[str, ...]:
        """The evaluator's."""
        return self.about.columns
