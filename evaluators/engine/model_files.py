"""What is the same for all models that are loaded from files: a version that follows their content, and
silence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging


def files_version(folder: Path, code: str) -> str:
    """Twelve hexadecimal digits that change with any byte of any file in ``folder``, with a file's name,
    and with ``code``: a constant of the evaluator, raised whenever it would score the same text
    otherwise.

    A file that this process has read before is not read again while its size, its time of change and its
    identity stay.
    """
    digest = hashlib.blake2b(code.encode(), digest_size=6)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + b"\0")
        about = file.stat()
        digest.update(
            _file_digest(
                file, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
            )
        )
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(file: Path, _identity: tuple[int, ...]) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").digest()


def combined_version(*parts: str) -> str:
    """Twelve hexadecimal digits that change with any of ``parts``."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def model_version(source: str, config: Any, code: str) -> str:
    """Twelve hexadecimal digits for the model at ``source``: a folder's files, or the commit of a Hugging
    Face id."""
    if Path(source).is_dir():
        return files_version(Path(source), code)
    commit = str(getattr(config, "_commit_hash", None))
    return hashlib.blake2b(f"{source}@{commit} {code}".encode(), digest_size=6).hexdigest()


def model_name(source: str) -> str:
    """The folder's name, or the Hugging Face id as it is."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def offline_folder(models_dir: Path, name: str) -> Path:
    """The folder of a prepared model in ``models_dir``; ``FileNotFoundError`` when it is not there."""
    folder = models_dir / name
    if not folder.is_dir():
        raise FileNotFoundError(f"the model {name} is not in {models_dir}")
    return folder


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """No progress bars of transformers on standard error: they would mix with a log or with our own bar."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
