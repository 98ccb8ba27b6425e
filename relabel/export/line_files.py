"""Exports as JSON lines: streamed, in one file, or one file a split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from relabel.export.export import Export
from relabel.export.manifest import WrittenFile
from relabel.export.split import SPLITS


class LineFile:
    """Counts and hashes what is written to ``stream``."""

    def __init__(self, name: str, split: str | None = None, stream: BinaryIO | None = None) -> None:
        self._name = name
        self._split = split
        self._stream = stream
        self._hash = sha256()
        self._bytes = 0
        self._examples = 0

    def add(self, lines: bytes, examples: int) -> None:
        """Write whole lines."""
        self._hash.update(lines)
        self._bytes += len(lines)
        self._examples += examples
        if self._stream is not None:
            self._stream.write(lines)

    def written(self) -> WrittenFile:
        """What has been written."""
        return WrittenFile(self._name, self._split, self._examples, self._bytes, self._hash.hexdigest())


def stream_lines(export: Export, file: LineFile) -> Iterator[bytes]:
    """Chunks of whole lines of an export without a split, as they also go to ``file``. Raises as iterating it does."""
    for chunk in export:
        for examples in chunk.values():
            lines = b"".join(example.line for example in examples)
            file.add(lines, len(examples))
            yield lines


def write_lines(export: Export, path: Path, stream: BinaryIO) -> WrittenFile:
    """Write an export without a split to ``stream``, which is to be ``path``."""
    file = LineFile(path.name, None, stream)
    for _lines in stream_lines(export, file):
        pass
    return file.written()


def write_split_lines(export: Export, folder: Path) -> list[WrittenFile]:
    """Write ``train.jsonl`` and ``test.jsonl`` into ``folder``."""
    with contextlib.ExitStack() as stack:
        files = {
            split: LineFile(
                f"{split}.jsonl", split, stack.enter_context((folder / f"{split}.jsonl").open("wb"))
            )
            for split in SPLITS
        }
        for chunk in export:
            for place, examples in chunk.items():
                files[place.split].add(b"".join(example.line for example in examples), len(examples))
    return [file.written() for file in files.values()]
