"""The rules of the layout, read from the files themselves: what import-linter cannot see."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("servelens", "collector", "serving_proxy", "evaluators", "experiments", "relabel", "dashboard")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 400
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_package_holds_only_its_docstring() -> None:
    for path in MODULES:
        if path.name == "__init__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), name(path)
            # An import here would be paid by everybody who imports a module of the package.
            assert len(tree.body) == 1, name(path)


def test_a_module_is_one_idea() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_LINES, f"{name(path)}: split it, one idea a file"
        assert path.stem not in DRAWERS, name(path)
        assert ast.get_docstring(ast.parse(text)), f"{name(path)}: say what the file is for"


def test_only_the_settings_file_and_the_command_line_read_the_environment() -> None:
    allowed = {"servelens/settings_file.py", "servelens/demo/backend.py", "servelens/demo/run.py"}
    readers = {
        name(path)
        for path in MODULES
        if any(word in path.read_text(encoding="utf-8") for word in ("os.environ", "os.getenv", "getenv("))
    }
    assert readers == allowed


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("servelens.cli", ("torch", "polars", "deltalake", "fastapi", "dash", "uvicorn", "scipy")),
        (
            "servelens.processes.proxy",
            ("torch", "transformers", "polars", "deltalake", "pyarrow", "scipy", "dash"),
        ),
        ("servelens.processes.collector", ("torch", "transformers", "scipy", "dash", "evidently", "fastapi")),
        ("servelens.processes.scheduler", ("torch", "transformers", "dash", "evidently", "fastapi")),
        ("servelens.processes.console", ("torch", "transformers", "evidently")),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({absent!r})))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports"))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
