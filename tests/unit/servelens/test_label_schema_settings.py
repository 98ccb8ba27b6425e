"""Label schemas of the settings file, as the processes take them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from relabel.label_schema import FieldType
from servelens.assembly.label_schemas import open_schema_store
from servelens.clock import SystemClock
from servelens.settings import Settings
from servelens.settings_file import load_settings
from tests.new_database import new_database
from tests.unit.servelens.control_settings import backend

RATING: dict[str, Any] = {"name": "rating", "type": "rating", "scale": 5, "good_from": 4}


def written(folder: Path, *schemas: dict[str, Any], **environment: str) -> Settings:
    config = folder / "servelens.yaml"
    endpoints = [{"name": name, "config": {"served_entities": [backend()]}} for name in ("chat", "code")]
    file = {"data_dir": str(folder), "endpoints": endpoints, "relabel": {"schemas": list(schemas)}}
    config.write_text(yaml.safe_dump(file))
    return load_settings(config, environment)


def test_the_schemas_of_the_file_are_what_annotators_are_asked(tmp_path: Path) -> None:
    schema = {"endpoint": "chat", "annotators": "${PEOPLE}", "fields": [RATING]}
    settings = written(tmp_path, schema, PEOPLE="3")
    database = new_database(tmp_path / "servelens.db")
    try:
        store = open_schema_store(settings, database, SystemClock())
        current = store.current("chat")
        assert (current.version, current.annotators) == (1, 3)
        rating = current.of_type(FieldType.RATING)
        assert rating is not None
        assert (rating.scale, rating.good_from) == (5, 4)
        assert store.current("code").version == 0
        again = open_schema_store(settings, database, SystemClock())
        assert again.current("chat").version == 1
        gone = open_schema_store(written(tmp_path), database, SystemClock())
        assert gone.current("chat").of_type(FieldType.TAGS) is not None
    finally:
        database.dispose()
