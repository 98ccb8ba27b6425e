"""The evaluator ``judge``: grades by an LLM on any OpenAI-compatible endpoint.

Invariant: what a judge could not be asked is not marked unscored for good because the judge was down. After its retries a
text that failed is set aside, and a short text of our own is sent. If the judge does not answer that one either, the batch
raises :class:`~servelens.errors.Unavailable`: nothing of it is kept, the next run tries again, and the grades that were paid
for are remembered until then. If it does, the text is asked once more before it is unscored.

A judge that is called through our own proxy marks its calls with a tag, and does not judge records that carry it: it would
otherwise never end.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import httpx

from evaluators.evaluator import EMPTY, Score, Target, Text, target_text, unscored
from evaluators.judge.answer import Grades, NoGrade, read_completion, read_usage
from evaluators.judge.client import REJECTED, TAG, Failed, JudgeClient, Rejected
from evaluators.judge.options import HERE, JudgeOptions
from evaluators.judge.prompt import EXPLANATION, messages
from evaluators.judge.spending import Budget, Prices
from servelens.errors import Unavailable

COST_LIMIT: Final = "cost_limit"
"""The judge has cost what it may in this run or on this day."""
JUDGE_CALL: Final = "judge_call"
"""The record is a judge's own call."""
TOO_LONG: Final = "too_long"
"""More characters than ``max_characters``."""
DISAGREES: Final = "judge_disagrees"
"""No label has more of the samples than every other."""

_PROBE: Final = Text(prompt="What is the capital of France?", response="Paris.")
_PROBE_RETRIES: Final = 1
_ASKED: Final = 2  # how often a text is asked, each with all retries, before it is unscored
_LEAST_BREAK: Final = 5
_CHARACTERS_A_TOKEN: Final = 3  # of English about four; what is guessed should not be too low
_TOKENS_OUT: Final = 1_000  # guessed where max_tokens does not say


@dataclass(frozen=True, slots=True)
class _Reply:
    """What one sample gave; ``cost`` is ``None`` without prices."""

    found: Grades | NoGrade
    tokens: tuple[int, int]
    cost: float | None
    plain: bool


class _CostLimitError(Exception):
    """Nothing was sent: it could have cost more than is left."""


@dataclass(slots=True)
class _Round:
    """One pass over the texts that wait for a grade; ``streak`` counts failures since the last answer, ``refused`` is why no
    request is taken at all."""

    client: JudgeClient
    seats: asyncio.Semaphore
    limit: int
    streak: int = 0
    refused: Unavailable | None = None
    outcomes: dict[int, Score | Rejected | Failed] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        return self.refused is not None or self.streak >= self.limit


class Judge:
    """Grades texts. :meth:`score` is called by one thread at a time, which runs no event loop; ``backoff_s`` is the longest
    wait before the first retry."""

    columns = ("tags",)
    device = "remote"

    def __init__(
        self,
        options: JudgeOptions,
        *,
        prices: Prices | None = None,
        budget: Budget | None = None,
        backoff_s: float = 1.0,
    ) -> None:
        self._options = options
        self._prices = prices
        self._budget = budget or Budget(per_run=None, per_day=None, ledger=None)
        self._backoff_s = backoff_s
        self._plain = False
        self._paid: dict[bytes, Score] = {}
        self.version = options.version

    @property
    def name(self) -> str:
        return self._options.name

    @property
    def model(self) -> str:
        return self._options.model

    @property
    def target(self) -> Target:
        return self._options.target

    def begin_run(self) -> None:
        """A run begins: ``max_cost_per_run`` counts from here."""
        self._budget.begin_run()

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """One score per text. Raises :class:`~servelens.errors.Unavailable` when the judge is down or refuses everything."""
        return asyncio.run(self._score(batch))

    async def _score(self, batch: Sequence[Text]) -> list[Score]:
        scores: dict[int, Score] = {}
        for index, text in enumerate(batch):
            known = self._without_asking(text)
            if known is not None:
                scores[index] = known
        waiting = [index for index in range(len(batch)) if index not in scores]
        asked: Counter[int] = Counter()
        self._budget.begin_batch()
        limits = httpx.Limits(max_connections=self._options.concurrency)
        try:
            async with httpx.AsyncClient(limits=limits, timeout=self._options.timeout_s) as http:
                client = JudgeClient(self._options, http, backoff_s=self._backoff_s, plain=self._plain)
                while waiting:
                    this = await self._round(client, batch, waiting)
                    self._plain = client.plain
                    scores |= {
                        index: each for index, each in this.outcomes.items() if isinstance(each, Score)
                    }
                    failed = {
                        index: each for index, each in this.outcomes.items() if not isinstance(each, Score)
                    }
                    if this.refused is not None:
                        raise this.refused
                    if failed:
                        await self._check_judge(client, next(iter(failed.values())))
                    for index, each in failed.items():
                        asked[index] += 1
                        if isinstance(each, Rejected):
                            scores[index] = unscored(REJECTED, error=each.detail)
                        elif asked[index] >= _ASKED:
                            scores[index] = unscored(each.reason, error=each.detail)
                    waiting = [index for index in waiting if index not in scores]
        except Unavailable:
            self._paid |= {
                _key(batch[index]): score
                for index, score in scores.items()
                if score.unscored_reason not in (COST_LIMIT, JUDGE_CALL, EMPTY, TOO_LONG)
            }
            raise
        self._paid.clear()
        return [scores[index] for index in range(len(batch))]

    def _without_asking(self, text: Text) -> Score | None:
        if _is_judges(text.columns.get("tags")):
            return unscored(JUDGE_CALL)
        if target_text(text, self.target) is None:
            return unscored(EMPTY)
        characters = len(text.prompt or "") + (len(text.response or "") if self.target == "response" else 0)
        if characters > self._options.max_characters:
            return unscored(TOO_LONG, characters=float(characters))
        return self._paid.get(_key(text)) if self._paid else None

    async def _round(self, client: JudgeClient, batch: Sequence[Text], waiting: Sequence[int]) -> _Round:
        """Ask for each once. Texts that are left when failure follows failure are not asked and have no outcome."""
        seats = asyncio.Semaphore(self._options.concurrency)
        limit = max(_LEAST_BREAK, self._options.concurrency)
        this = _Round(client, seats, limit)

        async def grade(index: int) -> None:
            try:
                outcome = await self._grade(this, batch[index])
            except Unavailable as error:
                this.refused = error
            else:
                if outcome is not None:
                    this.outcomes[index] = outcome

        async with asyncio.TaskGroup() as tasks:
            for index in waiting:
                tasks.create_task(grade(index))
        return this

    async def _grade(self, this: _Round, text: Text) -> Score | Rejected | Failed | None:
        """The score from all samples; ``None`` when the text was not asked."""
        replies: list[_Reply] = []
        for _ in range(self._options.samples):
            async with this.seats:
                if this.broken:
                    return None
                try:
                    reply = await self._ask(this.client, text, retries=self._options.retries)
                except _CostLimitError:
                    return unscored(COST_LIMIT)
            if isinstance(reply, Failed | Rejected):
                this.streak += 1
                return reply
            this.streak = 0
            replies.append(reply)
        return self._combined(replies)

    async def _ask(self, client: JudgeClient, text: Text, *, retries: int) -> _Reply | Rejected | Failed:
        """One sample, and what it cost."""
        guess = self._guess(text)
        reserved = 0.0 if self._prices is None else self._prices.cost(*guess)
        if not await self._budget.reserve(reserved):
            raise _CostLimitError
        spent = 0.0
        try:
            reply = await client.ask(text, retries=retries)
            spent = reply.lost * reserved
            if isinstance(reply, Rejected | Failed):
                return reply
            tokens = read_usage(reply.body) or guess
            cost = 0.0 if self._prices is None else self._prices.cost(*tokens)
            spent += cost
            found = read_completion(reply.body, self._options)
            return _Reply(found, tokens, None if self._prices is None else cost, reply.plain)
        finally:
            await self._budget.settle(reserved, spent)

    async def _check_judge(self, client: JudgeClient, failed: Rejected | Failed) -> None:
        """Raise ``Unavailable`` unless the judge answers a text of ours."""
        try:
            probe = await self._ask(client, _PROBE, retries=min(_PROBE_RETRIES, self._options.retries))
        except _CostLimitError:
            return  # nothing more is sent, so what failed ends as it is or by the limit
        if isinstance(probe, _Reply):
            return
        raise Unavailable(
            f"the judge at {self._options.url} gives no answer: {failed.detail}",
            field=HERE,
            fix="Check that the server runs and takes such requests; the batch is tried again in the next run.",
        )

    def _guess(self, text: Text) -> tuple[int, int]:
        characters = sum(len(message["content"]) for message in messages(self._options, text))
        tokens_out = self._options.max_tokens or _TOKENS_OUT
        return -(-characters // _CHARACTERS_A_TOKEN), tokens_out

    def _combined(self, replies: Sequence[_Reply]) -> Score:
        """Median of the samples' values, or the label that most of them have; of those that can be read."""
        options = self._options
        facts: dict[str, float | str] = {
            "tokens_in": float(sum(reply.tokens[0] for reply in replies)),
            "tokens_out": float(sum(reply.tokens[1] for reply in replies)),
        }
        if self._prices is not None:
            facts["cost"] = sum(reply.cost or 0.0 for reply in replies)
        if any(reply.plain for reply in replies) and options.structured != "none":
            facts["structured"] = "none"
        grades = [reply.found for reply in replies if not isinstance(reply.found, NoGrade)]
        if 2 * len(grades) <= len(replies):
            reason, detail = Counter(
                (reply.found.reason, reply.found.detail)
                for reply in replies
                if isinstance(reply.found, NoGrade)
            ).most_common(1)[0][0]
            return unscored(reason, answer=detail, **facts)
        values = [_weighted(options, each.values) for each in grades]
        if options.samples > 1:
            facts |= {"samples": float(len(grades)), "spread": max(values) - min(values)}
        label = None
        if options.labels is not None and not options.criteria:
            counted = Counter(each.labels["label"] for each in grades).most_common(2)
            if len(counted) == 2 and counted[0][1] == counted[1][1]:
                return unscored(DISAGREES, answer=" or ".join(sorted(word for word, _ in counted)), **facts)
            label = counted[0][0]
            value = options.labels[label]
        else:
            value = statistics.median(values)
        nearest = grades[min(range(len(grades)), key=lambda index: abs(values[index] - value))]
        if options.criteria:
            facts |= {
                name: statistics.median(each.values[name] for each in grades) for name in options.grades
            }
        if options.threshold is not None:
            label = "pass" if value >= options.threshold else "fail"
        return Score(value, label, details={EXPLANATION: nearest.explanation} | facts)


def _weighted(options: JudgeOptions, values: Mapping[str, float]) -> float:
    if not options.criteria:
        return next(iter(values.values()))
    total = sum(each.weight for each in options.criteria)
    return sum(each.weight * values[each.name] for each in options.criteria) / total


def _is_judges(tags: Any) -> bool:
    """Whether a record's tags (a map, or the list of pairs that a frame gives for one) hold the judge's."""
    if not tags:
        return False
    if isinstance(tags, Mapping):
        return TAG in tags
    return any((pair.get("key") if isinstance(pair, Mapping) else pair[0]) == TAG for pair in tags)


def _key(text: Text) -> bytes:
    return sha256(repr((text.prompt, text.response)).encode("utf-8", "surrogatepass")).digest()
