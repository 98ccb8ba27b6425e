"""Writes the folder of the format ``huggingface``: ``data/PART/SPLIT-00000.parquet`` … and ``README.md``.

A file holds at most :data:`ROWS_PER_FILE` examples and is written in row groups, so memory is bounded. A part without an
example has one empty file a split, which loads as an empty split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from relabel.export.export import Example, Export, Place
from relabel.export.formats.format import Part
from relabel.export.manifest import WrittenFile
from relabel.export.split import SPLITS, TRAIN

ROWS_PER_FILE: Final = 50_000
_ROWS_PER_GROUP: Final = 1_000
_CARD: Final = "README.md"
_DEFAULT: Final = "prompt_completion"


def write_parquet(export: Export, folder: Path) -> list[WrittenFile]:
    """Write the files into ``folder``. Raises as iterating ``export`` does, and :class:`OSError`."""
    splits = SPLITS if export.query.split is not None else ("",)
    shards = {
        Place(name, split): _Shards(folder, name, split or TRAIN, part)
        for name, part in export.format.parts.items()
        for split in splits
    }
    try:
        for chunk in export:
            for place, examples in chunk.items():
                shards[place].add(examples)
        for each in shards.values():
            each.finish()
    finally:
        for each in shards.values():
            each.close()
    card = _card(export, [split or TRAIN for split in splits])
    (folder / _CARD).write_text(card, encoding="utf-8")
    files = [file for each in shards.values() for file in each.written(folder)]
    return [*files, WrittenFile(_CARD, None, 0, len(card.encode()), sha256(card.encode()).hexdigest())]


class _Shards:
    """The files of one part and split."""

    def __init__(self, folder: Path, name: str, split: str, part: Part) -> None:
        assert part.columns is not None, "every part of a Parquet format declares its columns"
        self._columns = part.columns
        self._place = folder / "data" / name
        self._place.mkdir(parents=True, exist_ok=True)
        self._split = split
        self._waiting: list[Mapping[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self._files: list[tuple[Path, int]] = []

    def add(self, examples: Sequence[Example]) -> None:
        self._waiting += [example.value for example in examples]
        while len(self._waiting) >= _ROWS_PER_GROUP:
            self._write(self._waiting[:_ROWS_PER_GROUP])
            del self._waiting[:_ROWS_PER_GROUP]

    def finish(self) -> None:
        if self._waiting or not self._files:
            self._write(self._waiting)
            self._waiting = []
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def written(self, folder: Path) -> Iterator[WrittenFile]:
        for path, rows in self._files:
            with path.open("rb") as stream:
                digest = sha256()
                while block := stream.read(1 << 20):
                    digest.update(block)
            name = path.relative_to(folder).as_posix()
            yield WrittenFile(name, self._split, rows, path.stat().st_size, digest.hexdigest())

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._writer is None or self._files[-1][1] + len(rows) > ROWS_PER_FILE:
            self.close()
            path = self._place / f"{self._split}-{len(self._files):05d}.parquet"
            self._writer = pq.ParquetWriter(path, self._columns, compression="zstd")
            self._files.append((path, 0))
        times = [column.name for column in self._columns if pa.types.is_timestamp(column.type)]
        read = [{**row, **{name: _moment(row[name]) for name in times}} for row in rows] if times else rows
        self._writer.write_table(pa.Table.from_pylist(list(read), schema=self._columns))
        path, written = self._files[-1]
        self._files[-1] = (path, written + len(rows))


def _moment(text: Any) -> datetime:
    return datetime.fromisoformat(str(text))


def _card(export: Export, splits: Sequence[str]) -> str:
    """The dataset card: which files each configuration has, and what they are."""
    configurations = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}-*.parquet"} for split in splits],
            **({"default": True} if name == _DEFAULT else {}),
        }
        for name in export.format.parts
    ]
    query = {**export.query.to_json(), "as_of": export.as_of}
    # JSON is YAML, and nothing in it can be taken for something else.
    return f"""---
configs: {json.dumps(configurations)}
tags: ["servelens"]
---

# Labeled answers of a served model

| configuration | a row | for |
| --- | --- | --- |
| `prompt_completion` (default) | `prompt`, `completion`, `tools` | supervised fine-tuning (TRL's `SFTTrainer`) |
| `preference` | `prompt`, `chosen`, `rejected`, `tools` | TRL's `DPOTrainer` |
| `kto` | `prompt`, `completion`, `label`, `tools` | TRL's `KTOTrainer` |
| `labels` | a label with its case | looking |

Load it with `datasets.load_dataset(FOLDER)` or `datasets.load_dataset(FOLDER, "preference")`. `tools` and the arguments of
tool calls are JSON in strings.

Made by servelens from this query; `manifest.json` says more:

```json
{json.dumps(query, indent=2, ensure_ascii=False)}
```
"""
