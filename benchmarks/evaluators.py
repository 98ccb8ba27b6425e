"""``python -m benchmarks.evaluators``: the scoring engine beside the plain way, on the same texts, in one run.

Toxicity by a classifier in BERT-base's shape beside transformers' ``pipeline`` at the best of several batch
sizes; perplexity (SmolLM2-135M on a CPU, Llama-1B's shape on a GPU) beside a loop of one loss a text: of answers given
their prompts, which is what the evaluator does by default, and of the same answers alone (``perplexity_alone``). Rounds
alternate, and a ratio is the median of the rounds' ratios of tokens per second. The last line is one JSON object.

MFU: operations that the model needs for the real tokens, per second, over the device's peak: the data sheet's
for the GPUs below, else the best of a large matrix product in the same run (which is printed for all).

It needs this folder, ``evaluators/``, torch, transformers and numpy, nothing else: copy the two folders to a
machine with a GPU and run it there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from benchmarks.scoring_contenders import Contender, ContenderFailed, Item, Plan, Round, contender
from benchmarks.scoring_texts import (
    PREPARED,
    Models,
    make_conversations,
    make_models,
    make_texts,
    model_flops,
)

DATASHEET: Final = {"H200": 989.4e12, "H100 PCIe": 756e12, "H100": 989.4e12, "A100": 312e12}
"""bfloat16 operations per second without sparsity, by a part of the name torch gives."""

_BATCH_SIZES: Final = {"cpu": (1, 2, 4, 8, 16), "cuda": (8, 16, 32, 64, 128, 256)}


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender's rounds on texts of ``tokens`` tokens in all."""

    plan: Plan
    precision: str
    rounds: list[Round]
    tokens: int
    texts: int

    @property
    def tokens_per_s(self) -> list[float]:
        return [self.tokens / each.seconds for each in self.rounds]

    @property
    def median(self) -> float:
        return statistics.median(self.tokens_per_s)


def main() -> int:
    options = _options()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    gpu = options.device.startswith("cuda")
    count = options.texts or (48 if options.quick else 20_000 if gpu else 256)
    rounds = 1 if options.quick else options.rounds
    texts = make_texts(count, options.seed)
    conversations = make_conversations(count, options.seed)
    peak = matmul_peak(options.device, quick=options.quick)
    with tempfile.TemporaryDirectory(prefix="servelens-benchmark-") as scratch:
        models = make_models(Path(scratch), texts, large=gpu, quick=options.quick)
        lengths = {
            "toxicity": _lengths(models.classifier, texts, most=512),
            "perplexity_alone": _lengths(models.language_model, texts, most=None),
        }
        asked = _lengths(models.language_model, [prompt for prompt, _ in conversations], most=None)
        lengths["perplexity"] = [sum(pair) for pair in zip(asked, lengths["perplexity_alone"], strict=True)]
        print(
            f"device: {device_name(options.device)}, torch {torch.__version__}, Python {platform.python_version()}"
        )
        for task, own in lengths.items():
            print(
                f"{task}: {count} texts, {sum(own)} tokens, median {statistics.median(own):.0f}, longest {max(own)}"
            )
        batch_size = best_batch_size(models, texts, options.device)
        toxicity = measure(
            toxicity_plans(models, options.device, batch_size), texts, lengths["toxicity"], rounds
        )
        perplexity = measure(
            perplexity_plans(models, options.device), conversations, lengths["perplexity"], rounds
        )
        alone = measure(
            perplexity_plans(models, options.device)[:2], texts, lengths["perplexity_alone"], rounds
        )
        flops = {
            "toxicity": model_flops(models.classifier, lengths["toxicity"]),
            "perplexity": model_flops(models.language_model, lengths["perplexity"]),
        }
    offline: list[Measured] = []
    folder = PREPARED / "toxicity"
    if folder.is_dir():
        plan = Plan("toxicity, the offline model", "offline_toxicity", folder, options.device, {})
        offline = measure([plan], texts, lengths["toxicity"], rounds)
    # Other work on the machine can only lower it.
    peak = max(peak, matmul_peak(options.device, quick=options.quick))
    print(f"peak by a matrix product: {peak / 1e12:.3f} TFLOPS ({'bfloat16' if gpu else 'float32'})")
    print_table([*toxicity, *perplexity, *alone, *offline], gpu=gpu)
    result = summary(toxicity, perplexity, flops, peak, options.device)
    result |= {
        "texts": count,
        "perplexity_alone_ratio": ratio(alone[1], alone[0]),
        "pipeline_batch_size": batch_size,
        "classifier": models.classifier_name,
        "language_model": models.language_model_name,
        "offline_toxicity_texts_per_s": round(count / offline[0].rounds[0].seconds) if offline else None,
        "quick": options.quick,
    }
    print(json.dumps(result))
    return 0


def toxicity_plans(models: Models, device: str, batch_size: int) -> list[Plan]:
    """The plain way, ours as it is by default, and for information others."""

    def plan(name: str, kind: str, **options: Any) -> Plan:
        return Plan(name, kind, models.classifier, device, options)

    plans = [
        plan(f"pipeline, batch size {batch_size}", "pipeline", batch_size=batch_size),
        plan("servelens toxicity", "classifier"),
    ]
    if device.startswith("cuda"):
        return [*plans, plan("pipeline, bfloat16", "pipeline", batch_size=batch_size, dtype="bfloat16")]
    others = [
        plan(f"servelens toxicity, {name}", "classifier", precision=name) for name in ("float32", "int8")
    ]
    return [*plans, *others]


def perplexity_plans(models: Models, device: str) -> list[Plan]:
    def plan(name: str, kind: str, **options: Any) -> Plan:
        return Plan(name, kind, models.language_model, device, options)

    plans = [plan("loss loop, one by one", "loss_loop"), plan("servelens perplexity", "perplexity")]
    if not device.startswith("cuda"):
        plans.append(plan("servelens perplexity, int8", "perplexity", precision="int8"))
    return plans


def best_batch_size(models: Models, texts: Sequence[str], device: str) -> int:
    """The pipeline's, on an eighth of the texts, in the order in which they come."""
    some = texts[: max(32, len(texts) // 8)]
    seconds: dict[int, float] = {}
    for size in _BATCH_SIZES["cuda" if device.startswith("cuda") else "cpu"]:
        plan = Plan("pipeline", "pipeline", models.classifier, device, {"batch_size": size})
        try:
            with contender(plan) as running:
                running.score(some[:8])
                seconds[size] = min(running.score(some).seconds for _ in range(2))
        except ContenderFailed as error:
            print(f"pipeline, batch size {size}: failed ({str(error).splitlines()[-1]})")
    if not seconds:
        raise SystemExit("the pipeline works at no batch size; there is nothing to compare with")
    print("pipeline by batch size, s: " + ", ".join(f"{size}: {took:.2f}" for size, took in seconds.items()))
    return min(seconds, key=lambda size: seconds[size])


def measure(plans: Sequence[Plan], texts: Sequence[Item], lengths: list[int], rounds: int) -> list[Measured]:
    """All contenders loaded, then round by round one after another over the same texts."""
    with ExitStack() as running:
        contenders: list[Contender] = [running.enter_context(contender(plan)) for plan in plans]
        for each in contenders:
            each.score(texts[:16])
        taken: list[list[Round]] = [[] for _ in plans]
        for _ in range(rounds):
            for own, each in zip(taken, contenders, strict=True):
                own.append(each.score(texts))
        return [
            Measured(each.plan, str(each.about["precision"]), own, sum(lengths), len(texts))
            for own, each in zip(taken, contenders, strict=True)
        ]


def ratio(ours: Measured, plain: Measured) -> float:
    """Median over the rounds of how many times the tokens per second."""
    return round(
        statistics.median(
            own / other for own, other in zip(ours.tokens_per_s, plain.tokens_per_s, strict=True)
        ),
        3,
    )


def cpu_ratio(ours: Measured, plain: Measured) -> float:
    """The same by CPU seconds, which other work on the machine disturbs less (with ``OMP_NUM_THREADS=1`` least)."""
    pairs = zip(ours.rounds, plain.rounds, strict=True)
    return round(statistics.median(other.cpu_seconds / own.cpu_seconds for own, other in pairs), 3)


def deviation(ours: Measured, plain: Measured, *, relative: bool) -> float:
    """The largest difference of a score from the plain one."""
    worst = 0.0
    for own, other in zip(ours.rounds[-1].values, plain.rounds[-1].values, strict=True):
        if own is None or other is None:
            if own != other:
                raise SystemExit(f"{ours.plan.name} and {plain.plan.name} did not score the same texts")
            continue
        worst = max(worst, abs(own - other) / (other if relative else 1.0))
    return float(f"{worst:.3g}")


def summary(
    toxicity: Sequence[Measured],
    perplexity: Sequence[Measured],
    flops: dict[str, float],
    matmul: float,
    device: str,
) -> dict[str, Any]:
    """The JSON object: the plain contender is first in each list, ours second."""
    sheet = next((peak for name, peak in DATASHEET.items() if name in device_name(device)), None)
    result: dict[str, Any] = {"device": device_name(device)}
    others: dict[str, Any] = {}
    for task, measured in (("toxicity", toxicity), ("perplexity", perplexity)):
        plain, ours = measured[0], measured[1]
        speed = flops[task] * ours.median / ours.tokens
        result[f"{task}_ratio"] = ratio(ours, plain)
        if not device.startswith("cuda"):
            others[f"{task}_cpu_ratio"] = cpu_ratio(ours, plain)
        others[f"{task}_mfu_of_matmul"] = round(speed / matmul, 3)
        others[f"{task}_mfu"] = round(speed / (sheet or matmul), 3)
        others[f"{task}_precision"] = ours.precision
        relative = task == "perplexity"
        others[f"{task}_deviation"] = deviation(ours, plain, relative=relative)
        for each in measured[2:]:
            if each.plan.kind == "pipeline":
                others[f"{task}_ratio_to_{each.precision}_pipeline"] = ratio(ours, each)
            else:
                others[f"{task}_ratio_{each.precision}"] = ratio(each, plain)
                others[f"{task}_cpu_ratio_{each.precision}"] = cpu_ratio(each, plain)
                others[f"{task}_deviation_{each.precision}"] = deviation(each, plain, relative=relative)
        others[f"{task}_tokens_per_s"] = {
            f"{each.plan.name} ({each.precision})": round(each.median) for each in measured
        }
    result |= {name: others.pop(name) for name in ("toxicity_mfu", "perplexity_mfu")}
    return {
        **result,
        **others,
        "peak_tflops_matmul": round(matmul / 1e12, 3),
        "peak_tflops_datasheet": sheet and sheet / 1e12,
    }


def print_table(measured: Sequence[Measured], *, gpu: bool) -> None:
    memory = "GPU memory" if gpu else "RSS"
    print(f"\n{'':36}{'precision':>10}{'tokens/s':>12}{'texts/s':>10}{f'peak {memory}, MB':>22}")
    for each in measured:
        texts_per_s = statistics.median(each.texts / one.seconds for one in each.rounds)
        peak = max(one.peak_bytes for one in each.rounds) / 1e6
        # Words and not tokens are what the offline model reads.
        speed = "" if each.plan.kind == "offline_toxicity" else f"{each.median:,.0f}"
        print(f"{each.plan.name:36}{each.precision:>10}{speed:>12}{texts_per_s:>10,.1f}{peak:>22,.0f}")


def matmul_peak(device: str, *, quick: bool) -> float:
    """Operations per second of the best of several large matrix products, in what the device is best at."""
    gpu = device.startswith("cuda")
    size = 8192 if gpu else 512 if quick else 2048
    kind = torch.bfloat16 if gpu else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(10 if gpu else 5):
        started = time.perf_counter()
        torch.mm(left, right)
        if gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return float(2.0 * size**3 / best)


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    model = platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        lines = described.read_text().splitlines()
        model = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model
        )
    return f"cpu: {model}, {len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}"


def _lengths(folder: Path, texts: list[str], *, most: int | None) -> list[int]:
    numbers: list[list[int]] = AutoTokenizer.from_pretrained(folder)(texts, verbose=False)["input_ids"]
    return [min(len(own), most) if most else len(own) for own in numbers]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluators", description="The scoring engine beside the plain way."
    )
    parser.add_argument("--texts", type=int, help="how many (20,000 on a GPU, 256 on a CPU)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small models, few texts: does everything run?")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
