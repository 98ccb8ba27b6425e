"""Evaluations, from the settings, the database and what people ask for, checked against the endpoints that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from collector.catalog import Catalog
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from servelens.clock import Clock
from servelens.control.refusals import invalid_settings
from servelens.database import Database
from servelens.errors import Invalid, InvalidSettings, Missing
from servelens.evaluation_settings import EvaluationSettings
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
            _check(evaluation, catalog)
        except Invalid as error:
            place = f"evaluations[{index}].{error.field}"
            raise InvalidSettings(error.message, field=place, fix=error.fix) from error
    store = EvaluationStore(database, clock)
    store.apply_file(evaluations)
    return store


def requested_evaluation(body: Mapping[str, Any], catalog: Catalog) -> Evaluation:
    """The evaluation that ``body`` describes, in the shape of the settings file's block. Raises
    :class:`~servelens.errors.Invalid` that names the field and the fix, also for an endpoint or evaluator that is not there.
    """
    try:
        evaluation = EvaluationSettings.model_validate(dict(body)).build()
    except ValidationError as error:
        raise invalid_settings(error) from error
    _check(evaluation, catalog)
    return evaluation


def _check(evaluation: Evaluation, catalog: Catalog) -> None:
    evaluation.check_evaluator()
    try:
        catalog.tables(evaluation.endpoint)
    except Missing as error:
        raise Invalid(
            f"there is no endpoint '{evaluation.endpoint}'.",
            field="endpoint",
            fix=f"Use one of: {', '.join(catalog.endpoints) or 'there is none yet'}.",
        ) from error
