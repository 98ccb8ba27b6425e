"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("servelens", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("servelens")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


_LONG = {"integration", "browser", "ray_cluster"}


def _skipped_in_ci(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return (
        len(reporter.stats.get("skipped", [])) if reporter and os.environ.get("SERVELENS_REQUIRE_ALL") else 0
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with whole systems or clusters begin first, so that at the end no process of the run waits for the other."""
    items.sort(key=lambda item: not _LONG & set(item.path.parts))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything is installed, so a skipped test there is one that nobody runs: the run fails."""
    if _skipped_in_ci(session.config) and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a run without a failed test has failed."""
    skipped = _skipped_in_ci(terminalreporter.config)
    if skipped:
        terminalreporter.write_line(
            f"{skipped} skipped, which SERVELENS_REQUIRE_ALL does not allow", red=True
        )


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of prepared offline models, converted once for all checkouts of this user."""
    from evaluators.preparation.prepare import models_ready, prepare_models

    folder = Path(os.environ.get("SERVELENS_MODELS_DIR", Path.home() / ".cache" / "servelens" / "models"))
    if not models_ready(folder):
        prepare_models(folder, lambda _name, _fraction: None)
    return folder
