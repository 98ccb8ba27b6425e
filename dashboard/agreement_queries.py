"""How far people agree, and evaluators with people, as the pages show it: plain data, as the HTTP API gives it.

Both read all labels of an endpoint, which takes seconds where there are hundreds of thousands, and are kept until the next
decision (:mod:`relabel.agreement.kept`); so they are asked for beside the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from relabel.agreement.kept import PeopleAgreements
from relabel.api.agreement import MeasureEvaluator
from servelens.errors import Invalid, Missing

Target: TypeAlias = Literal["request", "response"]


class EvaluatorAgreement(MeasureEvaluator, Protocol):
    """Measures evaluators against people."""

    def choices(self, endpoint: str) -> Sequence[tuple[str, Target]]:
        """The evaluators and targets that rules of ``endpoint`` name."""
        ...


@dataclass(frozen=True, slots=True)
class EvaluatorView:
    """One evaluator: what was ``found``, or the ``problem`` that nothing could be."""

    evaluator: str
    target: Target
    found: Mapping[str, Any] | None
    problem: str | None = None


class AgreementQueries:
    """Reads agreement for the pages."""

    def __init__(self, reports: PeopleAgreements, evaluators: EvaluatorAgreement | None = None) -> None:
        self.reports = reports
        self._evaluators = evaluators

    def people(self, endpoint: str) -> Mapping[str, Any]:
        """The report of :func:`relabel.agreement.report.people_agreement`."""
        return self.reports.report(endpoint).to_dict()

    def evaluators(self, endpoint: str, positive: str | None = None) -> list[EvaluatorView]:
        """Every evaluator that a relabeling rule of ``endpoint`` names, against people. What cannot be measured says why;
        raises :class:`~servelens.errors.Unavailable` when something cannot be read.
        """
        if self._evaluators is None:
            return []
        found = []
        for evaluator, target in self._evaluators.choices(endpoint):
            try:
                measured = self._evaluators(endpoint, evaluator, target=target, positive=positive)
            except (Invalid, Missing) as error:
                found.append(EvaluatorView(evaluator, target, None, error.message))
            else:
                found.append(EvaluatorView(evaluator, target, measured))
        return found
