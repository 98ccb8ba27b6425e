"""Which limits of an endpoint concern a requester.

As in Databricks' AI Gateway (https://docs.databricks.com/aws/en/ai-gateway/configure-ai-gateway-endpoints): a limit on
the endpoint holds for everybody together; a limit for one named requester takes the place of the one for
each requester, of calls and of tokens apart. Callers without a name, as there are before the first API
key, count as one requester together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from serving_proxy.endpoint import RateLimit

Measure = Literal["calls", "tokens"]


class Budget(NamedTuple):
    """At most ``amount`` of ``measure`` in ``period_s`` seconds, counted under ``name``; two limits that count the
    same thing have the same name. ``who`` says whose it is.
    """

    name: str
    measure: Measure
    amount: int
    period_s: float
    who: str


def budgets_of(endpoint: str, limits: Iterable[RateLimit], requester: str | None) -> list[Budget]:
    """The requester's own budgets first, then those of the whole endpoint."""
    shared: list[Budget] = []
    for_each: list[Budget] = []
    for_one: list[Budget] = []
    for limit in limits:
        if limit.principal is not None and limit.principal != requester:
            continue
        for measure, amount in _amounts(limit):
            if limit.key == "endpoint":
                name = f"{endpoint}\0{measure}\0{limit.period_s:g}"
                shared.append(Budget(name, measure, amount, limit.period_s, "all callers together"))
                continue
            who = "callers without an API key" if requester is None else repr(requester)
            name = f"{endpoint}\0{measure}\0{limit.period_s:g}\0{requester or ''}"
            own = for_each if limit.principal is None else for_one
            own.append(Budget(name, measure, amount, limit.period_s, who))
    named = {budget.measure for budget in for_one}
    return [*for_one, *(budget for budget in for_each if budget.measure not in named), *shared]


def _amounts(limit: RateLimit) -> list[tuple[Measure, int]]:
    amounts: list[tuple[Measure, int]] = []
    if limit.calls is not None:
        amounts.append(("calls", limit.calls))
    if limit.tokens is not None:
        amounts.append(("tokens", limit.tokens))
    return amounts
