"""Which code made a verdict: the release, and a digest of the code that decides."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def code_version() -> str:
    """``0.1.0+3f9a1c2b7d4e``: the version of servelens, and the first 12 digits of the SHA-256 of all modules of
    :mod:`experiments` by path and content. Two reports of one code version went through the same statistics.
    """
    digest = sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    try:
        release = version("servelens")
    except PackageNotFoundError:  # run from a source tree that is not installed
        release = "0"
    return f"{release}+{digest.hexdigest()[:12]}"
