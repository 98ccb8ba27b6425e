"""Models from folders, ids and MLflow, the last with a real file store of runs and artifacts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.engine.model_source import local_model
from evaluators.evaluator import Text
from evaluators.scorers.perplexity import Perplexity
from evaluators.scorers.text_classification import TextClassification
from tests.unit.evaluators import tiny_classifiers, tiny_models


def logged(folder: Path, into: Path) -> Path:
    """``folder`` laid out as ``mlflow.transformers`` logs a model."""
    (into / "components").mkdir(parents=True)
    shutil.copytree(folder, into / "model")
    (into / "components/tokenizer").mkdir()
    for file in (into / "model").glob("tokenizer*"):
        file.rename(into / "components/tokenizer" / file.name)
    (into / "MLmodel").write_text(
        "flavors:\n  transformers:\n    model_binary: model\n    components: [tokenizer]\n"
    )
    return into


def test_a_folder_and_an_id_are_taken_as_they_are(tmp_path: Path) -> None:
    with local_model(str(tmp_path)) as files:
        assert (files.model, files.tokenizer, files.root) == (str(tmp_path),) * 3
        assert files.name == tmp_path.name
    with local_model("someone/some-model") as files:
        assert (files.model, files.tokenizer, files.name) == ("someone/some-model",) * 3


def test_a_logged_folder_has_its_tokenizer_elsewhere(tmp_path: Path) -> None:
    folder = logged(tiny_classifiers.classifier(tmp_path / "m"), tmp_path / "logged")
    with local_model(str(folder)) as files:
        assert (files.model, files.tokenizer) == (str(folder / "model"), str(folder / "components/tokenizer"))
    text = [Text(None, "the cat sat")]
    first = TextClassification(str(folder), labels=["toxic"], device="cpu", precision="float32")
    plain = TextClassification(str(tmp_path / "m"), labels=["toxic"], device="cpu", precision="float32")
    assert first.score(text)[0].value == plain.score(text)[0].value
    assert first.model == "logged"


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield tmp_path
    mlflow.set_tracking_uri(before)


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_models_come_from_runs_and_the_registry(tracking: Path) -> None:
    import mlflow

    folder = tiny_models.language_model(tracking / "m", leading=True)
    layout = logged(folder, tracking / "layout")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(layout), "model")
        mlflow.log_artifacts(str(folder), "plain")
    client = mlflow.MlflowClient()
    client.create_registered_model("answers")
    client.create_model_version("answers", f"{run.info.artifact_uri}/model", run.info.run_id)

    text = [Text(None, "the cat sat on the mat")]
    expected = Perplexity(str(folder), device="cpu").score(text)[0].value
    for uri in (f"runs:/{run.info.run_id}/model", f"runs:/{run.info.run_id}/plain", "models:/answers/1"):
        perplexity = Perplexity(uri, device="cpu")
        assert perplexity.score(text)[0].value == expected
        assert perplexity.model == uri
        assert perplexity.version == Perplexity(uri, device="cpu").version
    with pytest.raises(OSError, match="answers/7"):
        Perplexity("models:/answers/7", device="cpu")


@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_artifacts_that_are_no_transformers_model_are_named(tracking: Path) -> None:
    import mlflow

    (tracking / "notes").mkdir()
    (tracking / "notes/readme.txt").write_text("nothing")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tracking / "notes"), "notes")
    with pytest.raises(OSError, match="no transformers model"):
        Perplexity(f"runs:/{run.info.run_id}/notes", device="cpu")


def test_mlflow_is_imported_for_its_uris_only_and_missed_by_name(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from evaluators.engine.model_source import local_model\n"
        "with local_model('.'): pass\n"
        "assert 'mlflow' not in sys.modules\n"
        "sys.modules['mlflow'] = None\n"
        "try:\n"
        "    with local_model('models:/answers/1'): pass\n"
        "except ImportError as error:\n"
        "    print(error.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "mlflow-skinny", done.stderr
