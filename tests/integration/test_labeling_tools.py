"""What is written for Label Studio and Argilla, read by their own SDKs, and what Argilla's writes, read by us.

The SDKs are in ``.venv-backends``, since their ranges do not agree with ours; each runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from relabel.interchange.task_case import task_cases
from relabel.interchange.tool import Annotation, Said
from relabel.interchange.tools import TOOLS, ToolName
from relabel.label import Rating
from relabel.label_schema import Texts
from servelens.database import Database
from tests.interchange_cases import ANSWER, EVERYTHING, PROMPT, SHADOW, add_rich_cases
from tests.new_database import new_database

_PYTHON: Final = Path(__file__).parents[2] / ".venv-backends" / "bin" / "python"
_TEXTS: Final = Texts(PROMPT, ANSWER, (SHADOW,))
_LIMIT_S: Final = 120.0

_LABEL_STUDIO: Final = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
config, tasks = open("config").read(), json.load(open("tasks"))
interface = LabelInterface(config)
interface.validate()
wrong = [error for task in tasks for each in task["predictions"]
         for error in interface.validate_prediction(each, return_errors=True)]
# A validator that finds nothing in a wrong prediction would say nothing of a right one.
tasks[0]["predictions"][0]["result"][0]["value"] = {"choices": ["superb"]}
caught = interface.validate_prediction(tasks[0]["predictions"][0], return_errors=True)
missing = [name for task in tasks for each in interface.objects if (name := each.value_name) not in task["data"]]
json.dump({"controls": sorted(control.name for control in interface.controls), "wrong": wrong,
           "caught": bool(caught), "missing": missing}, sys.stdout)
"""

# The SDK asks a server who it is before it makes a question.
_ARGILLA: Final = """
import http.server, json, sys, threading, uuid

class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        me = json.dumps({"id": str(uuid.UUID(int=9)), "username": "owner", "role": "owner", "first_name": "o"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(me)))
        self.end_headers()
        self.wfile.write(me)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
import argilla
from argilla.records._io import GenericIO, JsonIO
argilla.Argilla(api_url=f"http://127.0.0.1:{server.server_port}", api_key="key")
settings = argilla.Settings.from_json("config")
settings.validate()
records = JsonIO._records_from_json("tasks")
suggested = {each.question_name: each.value for each in records[0].suggestions}
people = [uuid.UUID(int=number) for number in (1, 2, 3)]
for question, value in json.load(open("answers")).items():
    assert settings.questions[question] is not None
    records[0].responses.add(argilla.Response(question, value, user_id=people[0], status="submitted"))
records[0].responses.add(argilla.Response("rating", "good", user_id=people[1], status="draft"))
records[0].responses.add(argilla.Response("rating", "good", user_id=people[2], status="discarded"))
json.dump({"questions": {each.name: type(each).__name__ for each in settings.questions},
           "required": [each.name for each in settings.questions if each.required],
           "suggested": suggested, "exported": GenericIO.to_list(records, flatten=True)}, sys.stdout)
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    add_rich_cases(opened)
    yield opened
    opened.dispose()


def in_sdk(program: str, package: str, folder: Path) -> Any:
    """What ``program`` prints, run in ``folder`` where ``package`` is."""
    found = _PYTHON.exists() and list(_PYTHON.parents[1].glob(f"lib/python*/site-packages/{package}"))
    if not found:
        pytest.skip(f"{package} is not installed in .venv-backends")
    done = subprocess.run(
        [str(_PYTHON), "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def written(database: Database, tool: ToolName, folder: Path) -> None:
    """The files ``config`` and ``tasks``."""
    (folder / "config").write_text(TOOLS[tool].config(EVERYTHING), "utf-8")
    tasks = [TOOLS[tool].task(case, EVERYTHING) for case in task_cases(database, "chat")]
    (folder / "tasks").write_text(json.dumps(tasks), "utf-8")


def test_label_studio_takes_the_configuration_and_the_tasks(database: Database, tmp_path: Path) -> None:
    written(database, ToolName.LABEL_STUDIO, tmp_path)
    assert in_sdk(_LABEL_STUDIO, "label_studio_sdk", tmp_path) == {
        "controls": sorted(
            [*(each.name for each in EVERYTHING.fields if each.name != "answer"), "answer_", "comment"]
        ),
        "wrong": [],
        "caught": True,
        "missing": [],
    }


def test_argilla_takes_the_settings_and_the_records_and_gives_the_answers_back(
    database: Database, tmp_path: Path
) -> None:
    written(database, ToolName.ARGILLA, tmp_path)
    answers = {
        "rating": "bad",
        "quality": 4,
        "percent": "55",
        "topic": "health & care",
        "issues": ["rude", "long"],
        "marks": [{"start": 7, "end": 11, "label": "insult"}],
        "asked": [{"start": 14, "end": 19, "label": "pii"}],
        "answer_": "better 😀",
        "note-1": "a note",
        "better": "alternative_1",
        "tags": "one, two",
        "comment": "hm",
    }
    (tmp_path / "answers").write_text(json.dumps(answers), "utf-8")
    said = in_sdk(_ARGILLA, "argilla", tmp_path)
    assert said["questions"].keys() == answers.keys()
    assert said["questions"]["marks"] == "SpanQuestion"
    assert said["required"] == ["rating"]
    assert said["suggested"] == {
        "rating": "bad",
        "quality": 1,
        "percent": "7",
        "issues": ["rude"],
        "tags": "toxic",
    }
    tool = TOOLS[ToolName.ARGILLA]
    first, *others = (each for record in said["exported"] for each in tool.annotations(record))
    assert isinstance(first, Annotation)
    assert [each.said for each in others if isinstance(each, Annotation)] == [Said.DRAFT, Said.SKIPPED]
    read = tool.answers(first, EVERYTHING, _TEXTS)
    label = EVERYTHING.read(read.values, read.comment, texts=_TEXTS)
    assert (label.rating, label.preferred, label.comment) == (Rating.BAD, SHADOW, "hm")
    assert (label.corrected_answer, label.tags) == ("better 😀", ("one", "two"))
    assert label.values == {
        "quality": 4,
        "percent": 55,
        "topic": "health & care",
        "issues": ["rude", "long"],
        "marks": [{"start": 6, "end": 10, "label": "insult", "text": "fool"}],
        "asked": [{"start": 13, "end": 18, "label": "pii", "text": "a@b.c"}],
        "note-1": "a note",
    }
