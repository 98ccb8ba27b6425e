"""An evaluator for nodes of a cluster: it tells where it runs, and does what its text says: hang, crash, raise, end its actor."""

from __future__ import annotations

from pathlib import Path

SOURCE = """
import os, signal, time
from pathlib import Path
from evaluators.evaluator import Score, unscored

NODE = os.environ.get("SERVELENS_TEST_NODE", "none")


class Travelling:
    name, model = "travelling", "rules"

    def __init__(self, *, target="response", device="cpu", versions="same", columns=(), diary=""):
        self.version = "7" if versions == "same" else f"7 {NODE}"
        self.target, self.device, self.diary = target, device, diary
        if columns:
            self.columns = tuple(columns)

    def score(self, batch):
        if self.diary:
            (Path(self.diary) / NODE).touch()
        return [self.one(text) for text in batch]

    def one(self, text):
        told = text.prompt if self.target == "request" else text.response
        if told == "hang":
            time.sleep(600)
        if told == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if told == "raise":
            raise RuntimeError("I do not like it")
        if told == "nan":
            foreign = type("Foreign", (), {})()
            foreign.value, foreign.label, foreign.unscored_reason, foreign.details = float("nan"), None, None, {}
            return foreign
        if told == "kill actor":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        if told == "slow":
            time.sleep(0.02)
        if told == "gpu":
            return Score(float(os.environ.get("CUDA_VISIBLE_DEVICES") or -1))
        if told == "pid":
            return Score(float(os.getpid()))
        if hasattr(self, "columns"):
            return Score(float(text.columns["status_code"] or 0))
        return Score(float(len(told or "")), label=NODE, details={"tokens": 2.0}, vectors={"response": [0.5, 1.0]})
"""


def install(folder: Path) -> None:
    """Put the package into ``folder``, which is to be on the path of whoever uses it."""
    record = folder / "travelling-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: travelling\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(
        "[servelens.evaluators]\ntravelling = travelling_evaluator:Travelling\n"
    )
    (folder / "travelling_evaluator.py").write_text(SOURCE)
