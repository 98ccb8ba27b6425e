"""Builds a judge from its stored options; the parameters of :func:`build` are the options that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators.judge.judge import Judge
from evaluators.judge.options import HERE, checked
from evaluators.judge.spending import Budget, Ledger, Prices
from servelens.clock import SystemClock
from servelens.errors import Invalid


def build(
    *,
    models_dir: Path,
    url: str,
    model: str,
    api_key: str | None = None,
    name: str = "judge",
    target: str = "response",
    rubric: str | None = None,
    criteria: Sequence[Mapping[str, Any]] | None = None,
    scale: Sequence[float] | None = None,
    labels: Mapping[str, float] | None = None,
    threshold: float | None = None,
    temperature: float | None = 0.0,
    max_tokens: int | None = 500,
    extra_body: Mapping[str, Any] | None = None,
    structured: str = "json_schema",
    samples: int = 1,
    max_characters: int = 100_000,
    timeout_s: float = 60.0,
    concurrency: int = 8,
    retries: int = 4,
    backoff_s: float = 1.0,
    price_per_million_input: float | None = None,
    price_per_million_output: float | None = None,
    max_cost_per_run: float | None = None,
    max_cost_per_day: float | None = None,
    spending_file: str | None = None,
) -> Judge:
    """The judge of a spec. Raises :class:`~servelens.errors.Invalid`, which names the option."""
    options = checked(
        name=name,
        url=url,
        model=model,
        api_key=api_key,
        target=target,
        rubric=rubric,
        criteria=criteria,
        scale=scale,
        labels=labels,
        threshold=threshold,
        temperature=temperature,
        max_tokens=max_tokens,
        extra_body=extra_body,
        structured=structured,
        samples=samples,
        max_characters=max_characters,
        timeout_s=timeout_s,
        concurrency=concurrency,
        retries=retries,
    )
    if not 0 < backoff_s <= 60:
        raise Invalid(f"{backoff_s!r} is no time", field=f"{HERE}.backoff_s", fix="Use up to 60 seconds.")
    prices = _prices(price_per_million_input, price_per_million_output)
    for option, limit in (("max_cost_per_run", max_cost_per_run), ("max_cost_per_day", max_cost_per_day)):
        if limit is not None and not limit >= 0:
            raise Invalid(f"{limit!r} is no cost", field=f"{HERE}.{option}")
        if limit is not None and prices is None:
            raise Invalid(
                "what an answer costs is not known",
                field=f"{HERE}.{option}",
                fix="Give price_per_million_input and price_per_million_output.",
            )
    ledger = None
    if max_cost_per_day is not None:
        path = models_dir / "judge-spending.sqlite" if spending_file is None else Path(spending_file)
        ledger = Ledger(path, name, SystemClock())
    budget = Budget(per_run=max_cost_per_run, per_day=max_cost_per_day, ledger=ledger)
    return Judge(options, prices=prices, budget=budget, backoff_s=backoff_s)


def _prices(per_million_input: float | None, per_million_output: float | None) -> Prices | None:
    if per_million_input is None and per_million_output is None:
        return None
    for side, price in (("input", per_million_input), ("output", per_million_output)):
        if price is None or not price >= 0:
            raise Invalid(
                f"{price!r} is no price",
                field=f"{HERE}.price_per_million_{side}",
                fix="Give both, each at least 0.",
            )
    assert per_million_input is not None
    assert per_million_output is not None
    return Prices(per_million_input, per_million_output)
