"""``servelens scorer``: an evaluator as a service, for the proxies' ``safety`` guardrail."""

from __future__ import annotations

import asyncio
from pathlib import Path

from evaluators.registry import EvaluatorSpec, build
from evaluators.scorer_service.server import ServiceConfig, bind, run_service
from servelens.clock import SystemClock
from servelens.processes.lifecycle import start
from servelens.scorer_settings import ScorerSettings
from servelens.settings_file import load_settings
from servelens.supervisor import unblock_sigterm


def run(config: Path, *, supervised: bool) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    settings = load_settings(config)
    start("scorer", supervised=supervised)
    unblock_sigterm()
    scorer = settings.scorer
    with bind(scorer.host, scorer.port) as listener:
        _limit_threads(scorer.threads)
        evaluator = build(EvaluatorSpec(scorer.evaluator, scorer.options), settings.models_dir)
        asyncio.run(run_service(evaluator, _service(scorer), listener, SystemClock()))
    return 0


def _service(scorer: ScorerSettings) -> ServiceConfig:
    return ServiceConfig(
        max_wait_s=scorer.max_wait_ms / 1e3, max_batch=scorer.max_batch, max_queue=scorer.max_queue
    )


def _limit_threads(count: int) -> None:
    """Before any model is loaded. Every evaluator that computes on a CPU does it by torch."""
    import torch

    torch.set_num_threads(count)
