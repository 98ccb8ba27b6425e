"""Files and folders that appear under their names only when they are complete, and replace what was there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from servelens.errors import Invalid, Unavailable

_SUFFIX: Final = ".partial"


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes ``path`` when the block ends well. Raises
    :class:`~servelens.errors.Unavailable` when it cannot be written; ``path`` is then as it was.
    """
    with _told_apart(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                # mkstemp gives 0600, but a training job may run as somebody else.
                os.fchmod(stream.fileno(), 0o644)
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def replacing_folder(path: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``path`` when the block ends well.

    A folder that is there is replaced, with all that is in it, when it is empty or ``is_ours``; otherwise
    :class:`~servelens.errors.Invalid` is raised. Raises :class:`~servelens.errors.Unavailable` as above.
    """
    with _told_apart(path):
        if path.exists() and not path.is_dir():
            raise Invalid(f"{path} is a file", field="output", fix="Name a folder, or one that is not there.")
        if path.exists() and any(path.iterdir()) and not is_ours(path):
            raise Invalid(
                f"{path} holds something else than an export",
                field="output",
                fix="Name a folder that is empty or not there.",
            )
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX))
        try:
            partial.chmod(0o755)
            yield partial
            if path.exists():
                old = partial.with_suffix(".replaced")
                path.rename(old)
                partial.rename(path)
                shutil.rmtree(old)
            else:
                partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextlib.contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the export cannot be written: {error}",
            field=str(path),
            fix="Give a place in a writable folder.",
        ) from error
