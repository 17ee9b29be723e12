"""A worker: one step of TRL's experimental SDPO trainer whenever it is told, on the same questions."""

from __future__ import annotations

import argparse
import tempfile
import warnings
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from benchmarks.fixed_work import is_right, questions_of, size_arguments, size_of
from benchmarks.workers import Turn
from opcod.models import bundled_folder
from opcod.prompts import student_messages

STEPS = 100  # more than anybody waits for


class OneStepAtATime(TrainerCallback):
    """Begins a step when the driver says so, and tells what it took."""

    def __init__(self, turn: Turn, tokens: int) -> None:
        self.turn = turn
        self.tokens = tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The first batch is drawn, and its responses are sampled, before `on_step_begin`."""
        self.turn.ready()
        self.turn.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell, and wait for the word to begin the next step."""
        self.turn.end(rollout_tokens=self.tokens, feedback_tokens=0)
        self.turn.begin()


def main() -> None:
    """Train, step by step."""
    turn = Turn()
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    size_arguments(parser)
    parser.add_argument("--model", help="folder; by default the bundled one")
    parser.add_argument("--checkpoint_activations", action="store_true")
    parser.add_argument("--counted_for", help="a GPU, whose seconds and memory are told")
    options = parser.parse_args()
    if options.counted_for is not None:
        turn.count_for(options.counted_for)
    size = size_of(options)
    rows = size.questions * size.samples
    seen = {"responses": 0}

    def every_other_is_right(completions: list[Any], **_: Any) -> list[float]:
        assert len(completions) == rows
        seen["responses"] += rows
        return [float(is_right(i % size.samples)) for i in range(rows)]

    folder = options.model or bundled_folder()
    prompts = [student_messages(q) for q in questions_of(size, STEPS)]
    settings = SDPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        num_generations=size.samples,
        max_completion_length=size.length,
        generation_kwargs={"min_new_tokens": size.length},
        temperature=1.0,
        distillation_mode="topk_logits",
        distillation_topk=100,
        distillation_alpha=0.5,
        distillation_add_tail=True,
        teacher_model_kind="ema",
        max_prompt_length=2048,
        max_reprompt_len=2048,
        gradient_checkpointing=options.checkpoint_activations,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        shuffle_dataset=False,
        max_steps=STEPS,
        learning_rate=1e-5,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=every_other_is_right,
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[OneStepAtATime(turn, rows * size.length)],
    )
    trainer.train()


if __name__ == "__main__":
    main()
