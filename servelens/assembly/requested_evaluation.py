"""An evaluation as it is asked for by API or on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from collector.catalog import Catalog
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.secret_options import restored
from servelens.assembly.evaluations import check_evaluation
from servelens.control.invalid_settings import invalid_settings
from servelens.evaluation_settings import EvaluationSettings


def requested_evaluation(body: Mapping[str, Any], catalog: Catalog) -> Evaluation:
    """The evaluation that ``body`` describes, in the shape of the settings file's block. Raises
    :class:`~servelens.errors.Invalid` that names the field and the fix, also for an endpoint or evaluator that is not there.
    """
    try:
        evaluation = EvaluationSettings.model_validate(dict(body)).build()
    except ValidationError as error:
        raise invalid_settings(error) from error
    restored(evaluation.spec.options, {})  # a mask is no secret
    check_evaluation(evaluation, catalog)
    return evaluation
