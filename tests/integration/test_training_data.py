"""Exports are read by those that they are made for: TRL's trainers, `datasets`, OpenAI's and LLaMA-Factory's rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from relabel.export.formats.registry import FORMATS
from relabel.export.manifest import Manifests
from relabel.export.query import ExportQuery, Split
from relabel.export.write import write_export
from relabel.label import ANSWER, Label, Rating
from relabel.models import CaseRow
from relabel.queue.case_queue import CaseQueue
from servelens.clock import ManualClock
from servelens.database import Database
from tests.labeled_cases import BAD, GOOD, alternative, corrected
from tests.llama_factory_rules import read_alpaca_file, read_sharegpt_file
from tests.new_database import new_database
from tests.openai_chat_rules import read_chat_file
from tests.openai_preference_rules import read_preference_file
from tests.relabel_cases import START, add_cases, flagged

_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"city": "Ulm", "days": 2}'},
}
_OTHER_CALL = {
    "id": "call_2",
    "type": "function",
    "function": {"name": "add", "arguments": '{"terms": [1, 2]}'},
}
_TOOLS = [
    {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}},
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "required": ["terms"]}},
    },
]
_SCRIPT = Path(__file__).with_name("train_steps.py")


def _with_tools(call: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": [{"type": "text", "text": "How warm will it be?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": '{"degrees": 21}'},
        {"role": "assistant", "content": "21 degrees."},
    ]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Cases as people label them: good, bad, corrected, compared, with tools, in several turns."""
    opened = new_database(tmp_path_factory.mktemp("database") / "servelens.db")
    several_turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "5"},
    ]
    called = [{"role": "user", "content": "Add 1 and 2"}, {"role": "assistant", "tool_calls": [_OTHER_CALL]}]
    image = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
        {"role": "assistant", "content": "A cat."},
    ]
    cases: list[tuple[Label, list[dict[str, Any]] | None, list[dict[str, Any]] | None]] = [
        *((GOOD, None, None) for _ in range(6)),
        (BAD, None, None),
        *((corrected(f"A better answer, {number}."), None, None) for number in range(4)),
        (corrected("4"), several_turns, None),
        (GOOD, _with_tools(_CALL), _TOOLS),
        (corrected("About 21 degrees."), _with_tools({**_OTHER_CALL, "id": "call_9"}), _TOOLS),
        (GOOD, called, _TOOLS),
        (GOOD, image, None),
        (Label(preferred="other"), None, None),
        (Label(preferred=ANSWER), None, None),
        (Label(rating=Rating.GOOD, preferred="other"), None, None),
        (Label(preferred="tie"), None, None),
    ]
    queue = CaseQueue(opened, ManualClock(START))
    for number, (label, messages, tools) in enumerate(cases):
        add_cases(opened, [flagged(number, messages=messages, tools=tools)])
        if label.preferred is not None:
            with opened.session() as session:
                newest = select(CaseRow.id).order_by(CaseRow.id.desc()).limit(1).scalar_subquery()
                others = [alternative("other", f"another answer {number}")]
                session.execute(update(CaseRow).where(CaseRow.id == newest).values(alternatives=others))
        case = queue.claim("ann")
        assert case is not None
        queue.submit(case.id, "ann", label)
    yield opened
    opened.dispose()


@pytest.fixture(scope="module")
def exports(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every format, in files that are named by it."""
    folder = tmp_path_factory.mktemp("exports")
    manifests = Manifests(database, ManualClock(START).now)
    for name in FORMATS:
        if name == "labels_table":
            continue
        path = folder / (name if name == "huggingface" else f"{name}.jsonl")
        made = write_export(database, ExportQuery(format=name), path, manifests, by="ann")
        assert made["counts"]["written"] > 0, name
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` keeps what it reads in the test's folder and asks nobody."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_openai_files_keep_the_documented_rules(exports: Path) -> None:
    assert len(read_chat_file((exports / "openai_chat.jsonl").read_bytes())) == 18
    pairs = read_preference_file((exports / "openai_preference.jsonl").read_bytes())
    assert len(pairs) == 9
    texts = [
        (pair["preferred_output"][0]["content"], pair["non_preferred_output"][0]["content"]) for pair in pairs
    ]
    assert ("another answer 16", "answer 16") in texts
    assert ("answer 17", "another answer 17") in texts


def test_alpaca_and_sharegpt_files_keep_llama_factorys_rules(exports: Path) -> None:
    alpaca = read_alpaca_file((exports / "alpaca.jsonl").read_bytes())
    assert {
        "instruction": "What is 2 + 2?",
        "input": "",
        "output": "4",
        "system": "Be brief.",
        "history": [["Hello", "Hello."]],
    } in alpaca
    sharegpt = read_sharegpt_file((exports / "sharegpt.jsonl").read_bytes())
    speakers = [[turn["from"] for turn in record["conversations"]] for record in sharegpt]
    assert ["human", "function_call", "observation", "gpt"] in speakers
    assert ["human", "function_call"] in speakers
    assert len(sharegpt) == len(alpaca) + 3


@pytest.mark.usefixtures("offline")
def test_datasets_loads_the_files_of_lines(exports: Path) -> None:
    from datasets import load_dataset

    for path in sorted(exports.glob("*.jsonl")):
        lines = path.read_bytes().splitlines()
        loaded = load_dataset("json", data_files=str(path), split="train")
        assert len(loaded) == len(lines), path.name
    first = load_dataset("json", data_files=str(exports / "trl_preference.jsonl"), split="train")[0]
    assert first["chosen"][0]["content"] == "A better answer, 0."
    assert first["rejected"][0]["content"] == "answer 7"


@pytest.mark.usefixtures("offline")
def test_datasets_loads_the_folder_with_its_configurations_and_splits(
    database: Database, tmp_path: Path
) -> None:
    from datasets import get_dataset_config_names, load_dataset

    folder = tmp_path / "folder"
    query = ExportQuery(format="huggingface", split=Split(0.3, by="case"))
    made = write_export(database, query, folder, Manifests(database, ManualClock(START).now), by=None)
    assert set(get_dataset_config_names(str(folder))) == {"prompt_completion", "preference", "kto", "labels"}
    for part in ("prompt_completion", "preference", "kto", "labels"):
        loaded = load_dataset(str(folder), part)
        assert set(loaded) == {"train", "test"}
        for split, rows in loaded.items():
            assert len(rows) == made["counts"]["by_split"].get(f"{part}/{split}", 0)
    default = load_dataset(str(folder))
    assert default["train"].column_names == ["prompt", "completion", "tools"]
    assert len(default["train"]) + len(default["test"]) == 17
    labels = load_dataset(str(folder), "labels", split="train+test")
    assert len(labels) == made["counts"]["cases"] == 20
    assert {row["rating"] for row in labels} == {"good", "bad", None}
    tools = [row["tools"] for row in load_dataset(str(folder), split="train+test") if row["tools"]]
    assert [json.loads(each) for each in tools] == [_TOOLS] * 3


@pytest.mark.models
def test_one_step_of_each_trainer(exports: Path, models_dir: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(_SCRIPT), str(exports), str(models_dir / "SmolLM2-135M-Instruct")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    expected = {
        "trl_language_modeling": (17, ["text"]),
        "huggingface": (17, ["completion", "prompt"]),
        "trl_preference": (9, ["chosen", "prompt", "rejected"]),
        "trl_kto": (26, ["completion", "label", "prompt"]),
    }
    assert {name: (each["rows"], each["keys"]) for name, each in told.items()} == expected
    for name, each in told.items():
        assert each["conversational"], name
        assert each["steps"] == 1, name
        assert each["loss"] > 0, name
        assert each["changed"], name
