"""How a canary's weight rises: steps with their minimum duration and events, a deadline, and webhooks.

Light on purpose: the proxy builds experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal
from urllib.parse import urlsplit

from servelens.errors import Invalid

DEFAULT_DEADLINE_S = 7 * 86_400.0
LONGEST_DAYS = 3_650.0
LONGEST_S = LONGEST_DAYS * 86_400.0

_MOST_EVENTS = 10**12


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the treatment's ``weight`` in percent, and what it needs before the next: ``duration_s``
    seconds and ``events`` records of the treatment.
    """

    weight: float
    duration_s: float = 600.0
    events: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.weight < 100:
            raise Invalid(
                f"{self.weight} is no weight of a step in percent",
                field="weight",
                fix="Use more than 0 and less than 100: a comparison needs both variants.",
            )
        if not 0 <= self.duration_s <= LONGEST_S:
            raise Invalid(
                f"{self.duration_s} is no duration in seconds",
                field="duration_s",
                fix=f"Use 0 to {LONGEST_S:.0f}.",
            )
        if not 1 <= self.events <= _MOST_EVENTS:
            raise Invalid(
                f"a step needs 1 to {_MOST_EVENTS} events", field="events", fix="Use 100, for example."
            )


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that hears of decisions. ``before`` is asked before one is carried out, and anything but a 2xx
    holds it; ``after`` is told afterwards.
    """

    url: str
    when: Literal["before", "after"] = "after"
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise Invalid(f"{self.url!r} is no address", field="url", fix="Use http(s)://host/path.")
        if self.when not in ("before", "after"):
            raise Invalid(f"{self.when!r} is no time", field="when", fix="Use before or after.")
        if not 0 < self.timeout_s <= 60:
            raise Invalid(f"{self.timeout_s} is no time limit", field="timeout_s", fix="Use 1 to 60.")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # of the host or the port
        return False
    # A request line has neither spaces nor what is not ASCII, and urlsplit drops line ends silently.
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return is_plain and parts.scheme in ("http", "https") and bool(parts.hostname)


@dataclass(frozen=True, slots=True)
class Ramp:
    """A canary's way up. ``deadline_s`` after the last step began it ends inconclusive when its guardrails
    are not all under their margins. ``dry_run`` decides and logs, and changes nothing.
    """

    steps: tuple[Step, ...] = (Step(1), Step(5), Step(25), Step(50))
    deadline_s: float = DEFAULT_DEADLINE_S
    dry_run: bool = False
    webhooks: tuple[Webhook, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "webhooks", tuple(self.webhooks))
        if not self.steps:
            raise Invalid("a rollout needs a step", field="rollout.steps", fix="Add one, or leave it out.")
        for place, (earlier, later) in enumerate(pairwise(self.steps), start=1):
            if later.weight <= earlier.weight:
                raise Invalid(
                    f"the weight goes from {earlier.weight:g} to {later.weight:g}",
                    field=f"rollout.steps[{place}].weight",
                    fix="Let the weights rise from step to step.",
                )
        if not 0 < self.deadline_s <= LONGEST_S:
            raise Invalid(
                f"{self.deadline_s} is no time in seconds",
                field="rollout.deadline_s",
                fix=f"Leave it out, or use at most {LONGEST_S:.0f}.",
            )


@dataclass(frozen=True, slots=True)
class Bandit:
    """How a bandit moves its weights: every ``every_s`` seconds, no variant under ``floor`` (a probability).

    ``beta`` is the probability with which a unit goes to the variant that a draw makes the best; otherwise to the best of
    the others. 1 is plain Thompson sampling, which earns more while it learns less. With two variants 0.5 is an even split
    for good, since that is what tells two apart soonest.
    """

    floor: float = 0.05
    every_s: float = 3_600.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.floor < 0.5:
            raise Invalid(
                f"{self.floor} is no floor", field="bandit.floor", fix="Use 0.05, for example: a probability."
            )
        if not 0 < self.every_s <= LONGEST_S:
            raise Invalid(
                f"{self.every_s} is no time in seconds",
                field="bandit.every_s",
                fix=f"Leave it out, or use at most {LONGEST_S:.0f}.",
            )
        if not 0 <= self.beta <= 1:
            raise Invalid(f"{self.beta} is no probability", field="bandit.beta", fix="Use 0.5 to 1.")
