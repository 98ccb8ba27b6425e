"""A package with an evaluator that does what its text says: hang, crash, raise; installed into a folder for child processes."""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = """
import ctypes, os, re, signal, time
from evaluators.evaluator import Score, unscored
from servelens.errors import Unavailable


class Misbehaving:
    name, version, model = "misbehaving", "7", "rules"

    def __init__(self, *, target="response", device="cpu", load="", columns=(), pause_s=0.0):
        if load == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if load == "hang":
            time.sleep(600)
        if load == "wrong":
            raise ValueError("load is wrong.")
        print("a library that prints to standard output")
        self.target, self.device, self.pause_s = target, device, pause_s
        if columns:
            self.columns = tuple(columns)

    def score(self, batch):
        time.sleep(self.pause_s)
        return [self.one(text) for text in batch]

    def one(self, text):
        told = text.prompt if self.target == "request" else text.response
        if told == "hang":
            time.sleep(600)
        if told == "backtrack":
            re.match(r"(a+)+$", "a" * 40 + "b")  # holds the interpreter's lock all the time
        if told == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if told == "oom-killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if told == "memory":
            raise MemoryError("no room")
        if told == "raise":
            raise RuntimeError("I do not like it")
        if told == "away":
            raise Unavailable("the judge is away")
        if told == "nan":
            foreign = type("Foreign", (), {})()
            foreign.value, foreign.label, foreign.unscored_reason, foreign.details = float("nan"), None, None, {}
            return foreign
        if told == "numpy":
            import numpy
            return Score(1.0, details={"share": numpy.float32(0.5), "count": numpy.int64(3), "which": None, "half": "\\ud800"})
        if told == "pid":
            return Score(float(os.getpid()))
        if hasattr(self, "columns"):
            return Score(float(text.columns["status_code"] or 0))
        return Score(float(len(told or "")), details={"tokens": 2.0}, vectors={self.target: [0.5, 1.0]})
"""


def install(folder: Path) -> None:
    """Put the package into ``folder`` and the folder on this process's path, which workers are given too."""
    record = folder / "misbehaving-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(
        "[servelens.evaluators]\nmisbehaving = misbehaving_evaluator:Misbehaving\n"
    )
    (folder / "misbehaving_evaluator.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
