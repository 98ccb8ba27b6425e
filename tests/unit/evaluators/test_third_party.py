"""An evaluator that somebody else publishes: built and installed by pip, found by its entry point in a process of its
own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluators.registry import known_evaluators

PACKAGE = Path(__file__).parent / "third_party"
USE = """
import json, sys
from pathlib import Path
from evaluators.evaluator import Text, wanted_columns
from evaluators.registry import EvaluatorSpec, build, known_evaluators
from servelens.errors import Invalid

stored = EvaluatorSpec("shouting", {"min_letters": 4}).to_json()
evaluator = build(EvaluatorSpec.from_json(stored), Path("/nowhere"))
scores = evaluator.score(
    [Text(None, "STOP IT", {"model": "smollm2"}), Text(None, "well, well"), Text(None, "OK"), Text("asked", None)]
)
refusals = []
for options in ({"min_letters": 0}, {"volume": 11}):
    try:
        build(EvaluatorSpec("shouting", options), Path("/nowhere"))
    except Invalid as error:
        refusals.append(str(error))
print(json.dumps({
    "known": known_evaluators(),
    "version": evaluator.version,
    "columns": wanted_columns(evaluator),
    "scores": [[score.value, score.label, score.unscored_reason] for score in scores],
    "details": dict(scores[0].details),
    "refusals": refusals,
    "file": sys.modules[type(evaluator).__module__].__file__,
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it."""
    folder = tmp_path_factory.mktemp("third-party")
    # A copy: the build writes beside the sources.
    source = shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
    ]
    options = ["--disable-pip-version-check", "--no-cache-dir", "--target", str(target), str(source)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_package_brings_its_evaluator(site: Path) -> None:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", USE],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    used = json.loads(done.stdout)
    assert set(used["known"]) == {*known_evaluators(), "shouting"}
    assert Path(used["file"]).is_relative_to(site)
    assert used["version"] == "1.2.0 4"
    assert used["columns"] == ["model"]
    assert used["scores"] == [
        [1.0, "shouting", None],
        [0.0, "calm", None],
        [None, None, "too_short"],
        [None, None, "empty"],
    ]
    assert used["details"] == {"model": "smollm2"}
    assert used["refusals"] == [
        "evaluators[shouting]: min_letters is at least 1, not 0.",
        "evaluators[shouting]: unknown option 'volume'. Its options are: target, min_letters.",
    ]


def test_what_is_not_installed_is_not_known() -> None:
    assert "shouting" not in known_evaluators()
