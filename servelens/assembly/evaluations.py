"""The evaluations in the database, with those of the settings, checked against the endpoints that there are."""

from __future__ import annotations

from collector.catalog import Catalog
from evaluators.ground_truth.options import read_options
from evaluators.registry import known_evaluators
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Invalid, InvalidSettings, Missing
from servelens.settings import Settings


def open_evaluations(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock
) -> EvaluationStore:
    """The store, with the evaluations of the settings file in it. Raises InvalidSettings for one that names an endpoint
    or an evaluator that is not there.
    """
    evaluations = [each.build() for each in settings.evaluations]
    for index, evaluation in enumerate(evaluations):
        try:
            check_evaluation(evaluation, catalog)
        except Invalid as error:
            place = f"evaluations[{index}].{error.field}"
            raise InvalidSettings(error.message, field=place, fix=error.fix) from error
    store = EvaluationStore(database, clock)
    store.apply_file(evaluations)
    return store


def score_names(settings: Settings, database: Database, clock: Clock) -> frozenset[str]:
    """Every name that scores have or can have here: of installed evaluators, of evaluations, and of ground truth."""
    stored = {each.evaluation.score_name for each in EvaluationStore(database, clock).all()}
    truths = {read_options(each.options).evaluator for each in settings.ground_truth}
    return frozenset({*known_evaluators(), *stored, *truths})


def check_evaluation(evaluation: Evaluation, catalog: Catalog) -> None:
    """Raise :class:`~servelens.errors.Invalid` when its evaluator or its endpoint is not there."""
    evaluation.check_evaluator()
    try:
        catalog.tables(evaluation.endpoint)
    except Missing as error:
        raise Invalid(
            f"there is no endpoint '{evaluation.endpoint}'.",
            field="endpoint",
            fix=f"Use one of: {', '.join(catalog.endpoints) or 'there is none yet'}.",
        ) from error
