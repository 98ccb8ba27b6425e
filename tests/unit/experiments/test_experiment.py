from __future__ import annotations

import json
from typing import Any

import pytest

from experiments.experiment import Experiment, Variant, experiment_from_dict
from servelens.errors import Invalid

CONTROL, TREATMENT = Variant("champion", "a", 50), Variant("challenger", "b", 50)


def _experiment(**changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "name": "tone",
        "endpoint": "chat",
        "control": CONTROL,
        "treatments": (TREATMENT,),
        "primary_metric": "success_rate",
    }
    return Experiment(**{**values, **changes})


def test_the_definition_survives_json() -> None:
    experiment = _experiment(
        secondary_metrics=("latency_ms", "score:perplexity"), planned_units=400, share=20
    )
    assert experiment_from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


def test_the_salt_is_the_name_unless_given() -> None:
    assert _experiment().salt == "tone"
    assert _experiment(salt="pepper").salt == "pepper"


def test_new_weights_open_a_new_phase() -> None:
    ramped = _experiment().with_weights({"champion": 80, "challenger": 20}, share=50)
    assert (ramped.phase, ramped.share) == (1, 50)
    assert [variant.weight for variant in ramped.variants] == [80, 20]
    assert ramped.salt == _experiment().salt


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"endpoint": ""}, "endpoint"),
        ({"kind": "guess"}, "kind"),
        ({"unit": "planet"}, "unit"),
        ({"treatments": ()}, "treatments"),
        ({"treatments": (Variant("champion", "b", 50),)}, "treatments"),
        ({"treatments": (Variant("challenger", "b", 40),)}, "weight"),
        ({"treatments": (Variant("challenger", "b", float("nan")),)}, "treatments[0].weight"),
        ({"control": Variant("champion", "a", -1)}, "control.weight"),
        ({"share": 0}, "share"),
        ({"share": 100.1}, "share"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"phase": -1}, "phase"),
        ({"planned_units": 1}, "planned_units"),
        ({"primary_metric": "beauty"}, "primary_metric"),
        ({"secondary_metrics": ("latency_ms", "score:")}, "secondary_metrics[1]"),
        ({"secondary_metrics": ("success_rate",)}, "secondary_metrics[0]"),
    ],
)
def test_what_could_not_be_assigned_or_analysed_is_refused_by_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        _experiment(**changes)
    assert refused.value.field == field
