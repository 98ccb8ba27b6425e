from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluators.evaluator import Text
from evaluators.registry import EvaluatorSpec, build, known_evaluators
from servelens.errors import Invalid, Missing
from tests.unit.evaluators import tiny_models

SHOUTING = """
from evaluators.evaluator import Score, target_text

class Shouting:
    name, version, model, target, device = "shouting", "1", "rule", "response", "cpu"

    def __init__(self, *, factor: float = 1.0, models_dir=None):
        if factor <= 0:
            raise ValueError(f"factor is positive, not {factor}.")
        self.factor, self.models_dir = factor, models_dir

    def score(self, batch):
        return [Score(self.factor * sum(map(str.isupper, target_text(text, "response") or ""))) for text in batch]

class Mute:
    pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a distribution with one entry point: its metadata and its module in a folder on the path."""

    def install(name: str, value: str, distribution: str = "shouting-evaluator") -> None:
        site = tmp_path / "site"
        record = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(f"[servelens.evaluators]\n{name} = {value}\n")
        (site / "shouting_evaluator.py").write_text(SHOUTING)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, "shouting_evaluator", raising=False)

    return install


def test_a_spec_survives_being_stored() -> None:
    spec = EvaluatorSpec("perplexity", {"target": "request", "max_length": 512})
    assert EvaluatorSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "stored", ["", "[]", '{"name": "x"}', '{"name": 3, "options": {}}', '{"name": "x", "options": []}']
)
def test_what_is_no_stored_spec_is_invalid(stored: str) -> None:
    with pytest.raises(Invalid, match="stored evaluator"):
        EvaluatorSpec.from_json(stored)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"'toxicty'.*embedding, perplexity, toxicity"):
        build(EvaluatorSpec("toxicty"), tmp_path)


def test_a_third_party_brings_its_own(installed: Callable[[str, str], None], tmp_path: Path) -> None:
    installed("shouting", "shouting_evaluator:Shouting")
    assert known_evaluators() == ["embedding", "perplexity", "shouting", "toxicity"]
    evaluator = build(EvaluatorSpec("shouting", {"factor": 2.0}), tmp_path)
    assert [score.value for score in evaluator.score([Text(None, "HELLO you"), Text(None, "hm")])] == [
        10.0,
        0.0,
    ]
    assert evaluator.models_dir == tmp_path  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volume": 11}, r"unknown option 'volume'.*factor"),
        ({"models_dir": "/"}, r"unknown option 'models_dir'"),
        ({"factor": -1.0}, "factor is positive, not -1.0"),
        ({"factor": "loud"}, "not supported between"),
    ],
)
def test_options_that_an_evaluator_refuses_are_invalid(
    installed: Callable[[str, str], None], tmp_path: Path, options: dict[str, object], message: str
) -> None:
    installed("shouting", "shouting_evaluator:Shouting")
    with pytest.raises(Invalid, match=message) as caught:
        build(EvaluatorSpec("shouting", options), tmp_path)  # type: ignore[arg-type]
    assert caught.value.field == "evaluators[shouting]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:Shouting", "cannot be imported"),
        ("shouting_evaluator:Whispering", "cannot be imported"),
        ("shouting_evaluator:SHOUTING", "cannot be imported"),
        ("shouting_evaluator:__name__", "not callable"),
        ("shouting_evaluator:Mute", "no evaluator"),
    ],
)
def test_an_entry_point_that_is_no_evaluator_is_invalid(
    installed: Callable[[str, str], None], tmp_path: Path, value: str, message: str
) -> None:
    installed("shouting", value)
    with pytest.raises(Invalid, match=message):
        build(EvaluatorSpec("shouting"), tmp_path)


def test_a_built_in_name_cannot_be_taken(installed: Callable[[str, str], None], tmp_path: Path) -> None:
    installed("toxicity", "shouting_evaluator:Shouting")
    tiny_models.toxicity_network(tmp_path / "toxicity")
    assert type(build(EvaluatorSpec("toxicity"), tmp_path)).__name__ == "Toxicity"


def test_two_packages_of_one_name_are_a_choice_that_somebody_has_to_make(
    installed: Callable[..., None], tmp_path: Path
) -> None:
    installed("shouting", "shouting_evaluator:Shouting")
    installed("shouting", "shouting_evaluator:Shouting", "louder-evaluator")
    with pytest.raises(Invalid, match="louder-evaluator, shouting-evaluator"):
        build(EvaluatorSpec("shouting"), tmp_path)


def test_built_in_evaluators_are_built_with_their_options(tmp_path: Path) -> None:
    tiny_models.toxicity_network(tmp_path / "toxicity")
    folder = tiny_models.language_model(tmp_path / "somewhere" / "own-model")
    toxicity = build(
        EvaluatorSpec("toxicity", {"target": "request", "device": "cpu", "threshold": 0.9}), tmp_path
    )
    assert (toxicity.name, toxicity.target) == ("toxicity", "request")
    perplexity = build(
        EvaluatorSpec("perplexity", {"model": str(folder), "device": "cpu", "max_length": 16}), tmp_path
    )
    assert (perplexity.name, perplexity.model) == ("perplexity", "own-model")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toxicity", {}, "servelens models prepare"),
        ("perplexity", {}, "servelens models prepare"),
        ("perplexity", {"model": "/nowhere/at-all"}, "/nowhere/at-all"),
    ],
)
def test_a_model_that_is_not_there_is_missing(
    tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(Missing, match=message):
        build(EvaluatorSpec(name, options), tmp_path)


def test_a_folder_that_is_no_model_is_missing(tmp_path: Path) -> None:
    (tmp_path / "toxicity").mkdir()
    with pytest.raises(Missing, match="cannot be loaded"):
        build(EvaluatorSpec("toxicity"), tmp_path)


def test_naming_and_preparing_load_no_model_library() -> None:
    program = """
        import sys
        from pathlib import Path
        from evaluators.preparation.prepare import models_ready
        from evaluators.registry import known_evaluators
        known_evaluators(), models_ready(Path("/nowhere"))
        print([name for name in ("torch", "transformers", "numpy", "h5py", "gguf") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
