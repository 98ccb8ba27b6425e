"""The proxy stays light: nothing it imports pulls in a table, model, statistics or page library."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import serving_proxy
names = [module.name for module in pkgutil.walk_packages(serving_proxy.__path__, "serving_proxy.")]
for name in names:
    importlib.import_module(name)
heavy = {"torch", "transformers", "evidently", "deltalake", "polars", "pyarrow", "pandas", "scipy", "numpy"}
heavy |= {"dash", "apscheduler", "sqlalchemy"}
print(len(names), sorted(heavy & sys.modules.keys()))
"""


def test_no_heavy_library_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    count, _, heavy = done.stdout.strip().partition(" ")
    assert int(count) > 15
    assert heavy == "[]"
