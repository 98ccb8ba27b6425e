"""Where a model comes from: a folder, a Hugging Face id, or an MLflow URI.

An MLflow URI (``models:/name/3``, ``models:/name@champion``, ``runs:/RUN/model``, ``mlflow-artifacts:/…``) is
downloaded by mlflow, from the tracking server that its own settings name (``MLFLOW_TRACKING_URI`` and the
like), into a folder that lives as long as the model is being loaded. It holds either a transformers model as
``save_pretrained`` writes it, or one that was logged with ``mlflow.transformers``: its weights in ``model/``
and its tokenizer in ``components/tokenizer/``.

mlflow is imported for such a URI only; the package ``mlflow-skinny`` is enough.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCHEMES: Final = ("models:/", "runs:/", "mlflow-artifacts:/")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What to give ``from_pretrained`` for the weights (``model``) and for the ``tokenizer``; ``root`` is what
    the version is made of, and ``name`` what people call the model."""

    model: str
    tokenizer: str
    root: str
    name: str


def is_mlflow_uri(source: str) -> bool:
    return source.startswith(_SCHEMES)


@contextmanager
def local_model(source: str) -> Iterator[ModelFiles]:
    """The files of the model at ``source``, there until the block ends. ``OSError`` when there is no such
    model, ``ImportError`` when it takes mlflow and that is not installed."""
    if is_mlflow_uri(source):
        with tempfile.TemporaryDirectory(prefix="servelens-model-", ignore_cleanup_errors=True) as scratch:
            yield _transformers_files(_download(source, Path(scratch)), source)
    elif Path(source).is_dir():
        folder = Path(source)
        named = folder.resolve().name
        yield _transformers_files(folder, named) if _logged(folder) else _one_place(source, named)
    else:
        yield _one_place(source, source)


def _download(uri: str, into: Path) -> Path:
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise ImportError(
            f"{uri} is a model in MLflow, which takes the package mlflow-skinny (or mlflow).",
            name="mlflow-skinny",
        ) from error
    try:
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(into)))
    except MlflowException as error:
        raise OSError(f"MLflow has no model {uri}: {str(error).splitlines()[0]}") from error


def _logged(folder: Path) -> bool:
    return not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file()


def _one_place(source: str, name: str) -> ModelFiles:
    return ModelFiles(model=source, tokenizer=source, root=source, name=name)


def _transformers_files(folder: Path, name: str) -> ModelFiles:
    if (folder / "config.json").is_file():
        return _one_place(str(folder), name)
    weights = folder / "model"
    if not (weights / "config.json").is_file():
        raise OSError(
            f"{name} holds no transformers model: there is neither config.json nor model/config.json in it."
        )
    tokenizer = folder / "components" / "tokenizer"
    return ModelFiles(str(weights), str(tokenizer if tokenizer.is_dir() else weights), str(folder), name)
