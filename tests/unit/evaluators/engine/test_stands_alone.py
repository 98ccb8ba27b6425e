"""The engine, its scorers and their benchmark run from their two folders, without the rest of servelens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = """
import sys
import benchmarks.evaluators
import benchmarks.scoring_contenders
import evaluators.scorers.perplexity, evaluators.scorers.text_classification, evaluators.scorers.toxicity
others = {"servelens", "collector", "serving_proxy", "relabel", "polars", "pydantic", "sqlalchemy", "mlflow", "uvloop"}
assert not others & set(sys.modules), others & set(sys.modules)
print(evaluators.__file__, benchmarks.__file__)
texts = benchmarks.scoring_texts.make_texts(400, 5)
assert texts == benchmarks.scoring_texts.make_texts(400, 5) != benchmarks.scoring_texts.make_texts(400, 6)
words = sorted(len(text.split()) for text in texts)
print(words[200], words[-1])
"""


def test_nothing_else_is_imported(tmp_path: Path) -> None:
    for name in ("evaluators", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "peers"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    paths, words = done.stdout.strip().splitlines()
    assert all(path.startswith(str(tmp_path)) for path in paths.split())
    median, longest = map(int, words.split())
    assert 26 <= median <= 42
    assert 250 <= longest <= 450
