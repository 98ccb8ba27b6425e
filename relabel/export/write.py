"""Writes an export to a file or a folder, with its manifest, whole or not at all.

One file of JSON lines has its manifest beside it (``train.jsonl`` and ``train.manifest.json``); a split or a format of
several files is a folder with ``manifest.json``.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from relabel.export.export import Export
from relabel.export.formats.format import Layout
from relabel.export.formats.registry import format_of
from relabel.export.line_files import write_lines, write_split_lines
from relabel.export.manifest import MANIFEST, Manifests, WrittenFile, is_manifest
from relabel.export.parquet_folder import write_parquet
from relabel.export.query import ExportQuery
from relabel.export.replacing import replacing_file, replacing_folder
from servelens.database import Database
from servelens.errors import Invalid, Unavailable

_BLOCK: Final = 1 << 18


def is_folder(query: ExportQuery) -> bool:
    """Whether the export is several files."""
    return query.split is not None or format_of(query.format).layout is Layout.PARQUET


def refuse_table(query: ExportQuery) -> None:
    """Raise :class:`~servelens.errors.Invalid` for a format that is no files."""
    if format_of(query.format).layout is Layout.TABLE:
        raise Invalid(
            f"{query.format} is a table, not files", field="format", fix="Use 'servelens relabel export'."
        )


def write_export(
    database: Database, query: ExportQuery, path: Path, manifests: Manifests, *, by: str | None
) -> dict[str, Any]:
    """Write the export to ``path`` and give its manifest.

    Raises :class:`~servelens.errors.Unavailable` when the database fails or the files cannot be written, and
    :class:`~servelens.errors.Invalid` when ``path`` is something that must not be replaced; what was there is then as it
    was.
    """
    refuse_table(query)
    export = Export(database, query)
    if is_folder(query):
        with replacing_folder(path, _is_export) as folder:
            manifest = manifests.made(export, _write_folder(export, folder), by=by)
            (folder / MANIFEST).write_bytes(_bytes(manifest))
        return manifest
    if path.is_dir():
        raise Invalid(f"{path} is a folder", field="output", fix="Name a file.")
    with replacing_file(path) as stream, replacing_file(path.with_suffix(f".{MANIFEST}")) as beside:
        manifest = manifests.made(export, [write_lines(export, path, stream)], by=by)
        beside.write(_bytes(manifest))
    return manifest


def write_scratch(database: Database, query: ExportQuery, folder: Path) -> tuple[Export, list[WrittenFile]]:
    """Write the export into an empty ``folder`` without keeping a manifest: the export and what it wrote."""
    refuse_table(query)
    export = Export(database, query)
    if is_folder(query):
        return export, _write_folder(export, folder)
    path = folder / "export.jsonl"
    with path.open("wb") as stream:
        return export, [write_lines(export, path, stream)]


def stream_archive(
    database: Database, query: ExportQuery, manifests: Manifests, *, by: str | None
) -> tuple[Mapping[str, Any], Iterator[bytes]]:
    """An export of several files as a zip archive: its manifest, and the bytes, chunk by chunk.

    The files are made before the first byte is given, in a temporary folder, so a database that fails shows before the
    archive has begun. Close the iterator to remove them.
    """
    refuse_table(query)
    folder = tempfile.TemporaryDirectory(prefix="servelens-export-")
    try:
        export = Export(database, query)
        files = _write_folder(export, Path(folder.name))
        manifest = manifests.made(export, files, by=by)
        (Path(folder.name) / MANIFEST).write_bytes(_bytes(manifest))
    except OSError as error:
        folder.cleanup()
        raise Unavailable(f"the export cannot be written: {error}", field="the temporary folder") from error
    except BaseException:
        folder.cleanup()
        raise
    names = [*(file.name for file in files), MANIFEST]
    return manifest, _archived(folder, names)


def _archived(folder: tempfile.TemporaryDirectory[str], names: list[str]) -> Iterator[bytes]:
    sink = _Sink()
    with folder, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            # A fixed time, so that the same labels give the same archive.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with (
                (Path(folder.name) / name).open("rb") as source,
                archive.open(entry, "w", force_zip64=True) as to,
            ):
                while block := source.read(_BLOCK):
                    to.write(block)
                    yield sink.taken()
        archive.close()
        yield sink.taken()


class _Sink(io.RawIOBase):
    """What a zip archive is written to, piece by piece; it cannot seek."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        """That is all it is."""
        return True

    def write(self, data: Any, /) -> int:
        """Hold ``data``."""
        self._held += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last time."""
        held = bytes(self._held)
        self._held.clear()
        return held


def _write_folder(export: Export, folder: Path) -> list[WrittenFile]:
    if export.format.layout is Layout.PARQUET:
        return write_parquet(export, folder)
    return write_split_lines(export, folder)


def _is_export(folder: Path) -> bool:
    # Others have a manifest.json as well: the name alone is no leave to delete what is there.
    try:
        return is_manifest(json.loads((folder / MANIFEST).read_bytes()))
    except (OSError, ValueError):
        return False


def _bytes(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
