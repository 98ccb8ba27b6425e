"""The ways of scoring that ``benchmarks.evaluators`` compares, each in a process of its own, so that the peak
memory of each is its own; they compute one at a time.

The plain ways are what people write first: transformers' ``pipeline`` over the texts as they come, at one
batch size, and a loop of ``model(input_ids, labels=labels).loss``.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

Item: TypeAlias = "str | tuple[str, str]"
"""A text alone, or a prompt and its answer."""
Scoring: TypeAlias = Callable[[Sequence[Any]], list[float | None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """One way of scoring. ``options``: of the evaluator, or ``batch_size`` and ``dtype`` of a pipeline."""

    name: str
    kind: str
    folder: Path
    device: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over the texts: ``peak_bytes`` of resident memory (of the process, so far) or on the GPU;
    ``cpu_seconds`` are the process's, of all its threads."""

    seconds: float
    cpu_seconds: float
    values: list[float | None]
    peak_bytes: int


class ContenderFailed(Exception):
    """The other process could not do it; the message is its traceback."""


class Contender:
    """A process that has loaded one way of scoring and waits for texts."""

    def __init__(self, plan: Plan, connection: Any, about: dict[str, Any]) -> None:
        self.plan = plan
        self.about = about
        self._connection = connection

    def score(self, texts: Sequence[Item]) -> Round:
        """One pass over ``texts``."""
        self._connection.send(list(texts))
        return _answer(self._connection)  # type: ignore[no-any-return]


@contextmanager
def contender(plan: Plan) -> Iterator[Contender]:
    """Start it and wait until it has loaded; it ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(plan, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Contender(plan, ours, _answer(ours))
    finally:
        ours.close()
        process.join(30)
        if process.is_alive():
            process.kill()
            process.join()


def _answer(connection: Any) -> Any:
    try:
        answer = connection.recv()
    except EOFError as error:
        raise ContenderFailed("the process ended; it may have run out of memory") from error
    if isinstance(answer, str):
        raise ContenderFailed(answer)
    return answer


def _serve(plan: Plan, connection: Any) -> None:
    from transformers.utils import logging as transformers_logging

    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        scoring, about = _KINDS[plan.kind](plan)
        connection.send(about)
        while True:
            try:
                texts = connection.recv()
            except EOFError:
                return
            gpu = plan.device.startswith("cuda")
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            started, worked = time.perf_counter(), time.process_time()
            values = scoring(texts)
            seconds, used = time.perf_counter() - started, time.process_time() - worked
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            peak = torch.cuda.max_memory_allocated() if gpu else resident
            connection.send(Round(seconds, used, values, peak))
    except Exception:  # noqa: BLE001  # it is shown by the process that asked
        connection.send(traceback.format_exc())


def _pipeline(plan: Plan) -> tuple[Scoring, dict[str, Any]]:
    from transformers import pipeline

    chosen: dict[str, Any] = {"dtype": plan.options["dtype"]} if "dtype" in plan.options else {}
    loaded = pipeline("text-classification", model=str(plan.folder), top_k=None, device=plan.device, **chosen)
    sizes = {"batch_size": int(plan.options["batch_size"])}

    def score(texts: Sequence[str]) -> list[float | None]:
        answers = loaded(list(texts), truncation=True, **sizes)
        return [
            next(float(label["score"]) for label in labels if label["label"] == "toxic") for labels in answers
        ]

    return score, {"precision": str(loaded.model.dtype).removeprefix("torch.")}


def _loss_loop(plan: Plan) -> tuple[Scoring, dict[str, Any]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(plan.folder)
    # A CPU without bfloat16 instructions is several times slower in a checkpoint's bfloat16 than in float32; the
    # plain way gets the faster of the two.
    dtype: Any = torch.float32 if plan.device == "cpu" else "auto"
    model: Any = AutoModelForCausalLM.from_pretrained(plan.folder, dtype=dtype)
    model = model.to(plan.device).eval()

    def numbered(item: Item) -> tuple[Any, Any]:
        """Token numbers, and the same as labels, where −100 is what transformers leaves out of the loss."""
        if isinstance(item, str):
            numbers = tokenizer(item, return_tensors="pt").input_ids
            return numbers, numbers
        prompt, answer = item
        template = bool(tokenizer.chat_template)
        turn = [{"role": "user", "content": prompt}]
        opened = (
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            if template
            else f"{prompt}\n"
        )
        context = tokenizer(opened, return_tensors="pt", add_special_tokens=not template).input_ids
        counted = tokenizer(answer, return_tensors="pt", add_special_tokens=False).input_ids
        return torch.cat((context, counted), 1), torch.cat((torch.full_like(context, -100), counted), 1)

    @torch.inference_mode()
    def score(texts: Sequence[Item]) -> list[float | None]:
        values: list[float | None] = []
        for text in texts:
            numbers, labels = (each.to(plan.device) for each in numbered(text))
            values.append(
                math.exp(model(numbers, labels=labels).loss.item()) if numbers.shape[1] > 1 else None
            )
        return values

    return score, {"precision": str(model.dtype).removeprefix("torch.")}


def _ours(evaluator: Any) -> tuple[Scoring, dict[str, Any]]:
    from evaluators.evaluator import Text

    def score(texts: Sequence[Item]) -> list[float | None]:
        given = [Text(None, each) if isinstance(each, str) else Text(*each) for each in texts]
        return [score.value for score in evaluator.score(given)]

    return score, {"precision": getattr(evaluator, "precision", "float32")}


def _classifier(plan: Plan) -> tuple[Scoring, dict[str, Any]]:
    from evaluators.scorers.text_classification import TextClassification

    return _ours(
        TextClassification(
            str(plan.folder), name="toxicity", labels=["toxic"], device=plan.device, **plan.options
        )
    )


def _perplexity(plan: Plan) -> tuple[Scoring, dict[str, Any]]:
    from evaluators.scorers.perplexity import Perplexity

    return _ours(Perplexity(str(plan.folder), min_tokens=1, device=plan.device, **plan.options))


def _offline_toxicity(plan: Plan) -> tuple[Scoring, dict[str, Any]]:
    from evaluators.scorers.toxicity import Toxicity

    return _ours(Toxicity(plan.folder, device=plan.device))


_KINDS = {
    "pipeline": _pipeline,
    "loss_loop": _loss_loop,
    "classifier": _classifier,
    "perplexity": _perplexity,
    "offline_toxicity": _offline_toxicity,
}
