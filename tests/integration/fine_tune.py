"""A fine-tuning step on exported labels: ``python -m tests.integration.fine_tune DATA MODEL OUTPUT``.

A process of its own, as training is, so that its memory is given back. ``DATA`` is JSONL as TRL reads it (``messages``, or
``prompt`` and ``completion``); the last line printed is one JSON object with the loss before and after.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def fine_tune(data: Path, model: Path, output: Path, *, steps: int = 3) -> tuple[float, float]:
    """Train on the answers in ``data`` and save the model in ``output``, in the shape of ``model``'s folder; the first and
    the last loss.
    """
    rows = load_dataset("json", data_files=str(data), split="train", cache_dir=str(output.parent / "cache"))
    torch.manual_seed(0)
    arguments = SFTConfig(
        output_dir=str(output.parent / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=5e-5,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=arguments,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    log: list[dict[str, Any]] = trainer.state.log_history
    losses = [float(each["loss"]) for each in log if "loss" in each]
    trainer.model.save_pretrained(output)
    for each in model.iterdir():  # the tokenizer and the chat template, as they are
        if each.is_file() and not (output / each.name).exists():
            shutil.copy(each, output / each.name)
    return losses[0], losses[-1]


def main() -> None:
    """Fine-tune as the command line says."""
    data, model, output = (Path(each) for each in sys.argv[1:4])
    first, last = fine_tune(data, model, output)
    sys.stdout.write(json.dumps({"first_loss": first, "last_loss": last}) + "\n")


if __name__ == "__main__":
    main()
