"""Takes one training step of each of TRL's trainers on exported files; run as a process of its own, which prints JSON.

Arguments: the folder of the exports, and that of the tokenizer. The model is a Llama of two small layers with random weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.data_utils import is_conversational, maybe_apply_chat_template, maybe_extract_prompt


def main(exports: Path, tokenizer_dir: Path) -> dict[str, Any]:
    """What the trainers say of each export."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    told: dict[str, Any] = {}
    model_dir = exports / "tiny-llama"  # the trainers that compare with a reference load it again
    tiny_llama(len(tokenizer)).save_pretrained(model_dir)
    runs = (
        ("trl_language_modeling", None, SFTTrainer, SFTConfig),
        ("huggingface", "prompt_completion", SFTTrainer, SFTConfig),
        ("trl_preference", None, DPOTrainer, DPOConfig),
        ("trl_kto", None, KTOTrainer, KTOConfig),
    )
    for name, part, trainer_class, config_class in runs:
        if part is None:
            dataset = load_dataset("json", data_files=str(exports / f"{name}.jsonl"), split="train")
        else:
            dataset = load_dataset(str(exports / name), part, split="train")
        first = dataset[0]
        model = LlamaForCausalLM.from_pretrained(model_dir)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        config = config_class(
            output_dir=str(exports / "runs" / name),
            max_steps=1,
            per_device_train_batch_size=2,
            learning_rate=0.01,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            max_length=256,
        )
        trainer = trainer_class(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
        result = trainer.train()
        told[name] = {
            "rows": len(dataset),
            "conversational": is_conversational(first),
            "keys": sorted(maybe_apply_chat_template(maybe_extract_prompt(dict(first)), tokenizer)),
            "steps": result.global_step,
            "loss": result.training_loss,
            "changed": any(
                not torch.equal(old, new) for old, new in zip(before, trainer.model.parameters(), strict=True)
            ),
        }
    return told


def tiny_llama(words: int) -> LlamaForCausalLM:
    """A model that learns as a large one does, in a moment."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
