"""The demo from end to end, with the quick test backend in the place of the language model; all else is real."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from servelens.demo.prompts import prompts
from servelens.demo.run import run
from tests.integration.backend_process import backend_process


class QuickServer:
    """Echoes in a process of its own."""

    model = "echo"

    def __init__(self, _folder: Path, _port: int, _log: Path) -> None:
        self._stack = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        self.url = self._stack.enter_context(backend_process())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait_until_ready(self) -> None:
        """It printed its address, so it is."""


def test_the_prompts_are_what_the_readme_says() -> None:
    todo = prompts()
    assert len(todo) == 62
    users = {prompt.user for prompt in todo}
    assert len(users) == 24
    assert all(sum(prompt.user == user for prompt in todo) >= 2 for user in users)
    assert sum(prompt.stream for prompt in todo) >= 15


@pytest.mark.models
def test_the_demo(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVELENS_MODELS_DIR", str(models_dir))
    assert run(tmp_path, once=True, model_server=QuickServer) == 0
    (folder,) = tmp_path.iterdir()
    printed = capfd.readouterr().err
    assert "records sent 62 = records in the table 62" in printed
    assert "21 thumbs up, 3 thumbs down" in printed
    assert "3 labeled" in printed
    lines = (folder / "fine-tuning.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["messages"][-1]["role"] == "assistant" for line in lines)
    assert "Traceback" not in (folder / "servelens.log").read_text()
