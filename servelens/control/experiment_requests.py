"""An experiment as it is asked for by API or on the command line: the shape of the settings file's block, checked against
the endpoint that it is to run on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from experiments.experiment import Experiment
from servelens.control.invalid_settings import invalid_settings
from servelens.control.store import EndpointStore
from servelens.errors import Invalid, Missing
from servelens.experiment_settings import ExperimentSettings


def requested_experiment(body: Mapping[str, Any], endpoints: EndpointStore) -> Experiment:
    """The experiment that ``body`` describes. Raises :class:`~servelens.errors.Invalid` that names the field and the
    fix, also when the endpoint cannot answer for its variants.
    """
    try:
        settings = ExperimentSettings.model_validate(dict(body))
    except ValidationError as error:
        raise invalid_settings(error) from error
    experiment = settings.build()
    _refuse_misfit(experiment, endpoints)
    return experiment


def _refuse_misfit(experiment: Experiment, endpoints: EndpointStore) -> None:
    try:
        config = endpoints.get(experiment.endpoint).settings["config"]
    except Missing as error:
        names = ", ".join(endpoint.name for endpoint in endpoints.all())
        raise Invalid(
            f"there is no endpoint '{experiment.endpoint}'.",
            field="endpoint",
            fix=f"Use one of: {names or 'there is none yet'}.",
        ) from error
    entities = [entity["name"] for entity in config["served_entities"]]
    shadows = [shadow["served_entity_name"] for shadow in config.get("shadows", [])]
    for place, variant in enumerate(experiment.variants):
        field = "control" if place == 0 else f"treatments[{place - 1}]"
        if variant.served_entity not in entities:
            raise Invalid(
                f"endpoint '{experiment.endpoint}' has no served entity '{variant.served_entity}'.",
                field=f"{field}.served_entity",
                fix=f"Use one of: {', '.join(entities)}.",
            )
        if experiment.kind == "shadow" and place > 0 and variant.served_entity not in shadows:
            raise Invalid(
                f"'{variant.served_entity}' is no shadow of '{experiment.endpoint}'.",
                field=f"{field}.served_entity",
                fix=f"Add it to the endpoint's shadows (there are: {', '.join(shadows) or 'none'}).",
            )
