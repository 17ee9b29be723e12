"""A worker: one step of opcod's own trainer whenever it is told, phase after phase."""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import Any

import lightning as L

from benchmarks.fixed_work import DOMAINS, FixedWork, Size, question_data, size_arguments, size_of
from benchmarks.workers import Turn
from opcod.contexts import ContextSettings
from opcod.data.loaders import StepBatch
from opcod.matching import Matching
from opcod.memory import keep_freed_memory
from opcod.models import BaseModel
from opcod.optimization import Optimization
from opcod.peers import Lora
from opcod.rollout import Sampling
from opcod.students import Student

STEPS = 1000  # more than anybody waits for


class OneStepAtATime(L.Callback):
    """Begins a step when the driver says so, and tells what it took."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Everything is loaded."""
        self.turn.ready()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, idx: int) -> None:
        """Wait."""
        self.turn.begin()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, idx: int
    ) -> None:
        """Tell the time of each part, and how many tokens were sampled."""
        assert isinstance(pl_module, FixedWork)
        record = pl_module.record
        assert record is not None
        assert len(record.contexts) == len(record.attempts), "everything is distilled"
        parts = {name.split("/")[1]: s for name, s in record.figures.items() if name.startswith("seconds/")}
        rollout = sum(len(a.response.tokens) for a in record.attempts)
        feedback = sum(f.tokens for f in record.asked_feedbacks())
        self.turn.end(**parts, rollout_tokens=rollout, feedback_tokens=feedback)


def model_of(size: Size, options: argparse.Namespace) -> FixedWork:
    """The model as it is set up by the worker's options."""
    names = [Student("materials_scientist", DOMAINS[0]), Student("physicist", DOMAINS[1])]
    return FixedWork(
        size,
        students=names[: options.peers],
        base=BaseModel(
            options.model,
            quantization=options.quantization,
            packed=options.packed,
            dtype=options.dtype,
            attention=options.attention,
        ),
        lora=Lora(rank=8),
        rollout=Sampling(share_prefixes=not options.plain, batch_size=options.batch_size),
        feedback=Sampling(share_prefixes=not options.plain, batch_size=options.feedback_batch_size),
        matching=Matching(micro_batch_tokens=options.micro_batch_tokens, share_prefixes=not options.plain),
        context=ContextSettings(limit=options.context),
        optimization=Optimization(lr=1e-5),
        evaluation_samples=1,
        checkpoint_activations=options.checkpoint_activations,
    )


def step_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `model_of`, on a command line."""
    size_arguments(parser)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--packed", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--batch_size", type=int, default=64, help="responses sampled side by side")
    parser.add_argument("--feedback_batch_size", type=int, default=64, help="the same of feedback")
    parser.add_argument("--context", type=int, default=2048, help="most tokens of what a self-teacher is shown")
    parser.add_argument("--micro_batch_tokens", type=int, default=2048)
    parser.add_argument("--checkpoint_activations", action="store_true")
    parser.add_argument("--plain", action="store_true", help="nothing that prompts begin with is shared")


def trainer_of(*callbacks: L.Callback) -> L.Trainer:
    """A trainer that does nothing beside the steps."""
    return L.Trainer(
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def main() -> None:
    """Train, step by step."""
    turn = Turn()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser()
    step_arguments(parser)
    options = parser.parse_args()
    keep_freed_memory()
    size = size_of(options)
    trainer_of(OneStepAtATime(turn)).fit(model_of(size, options), datamodule=question_data(size, STEPS))


if __name__ == "__main__":
    main()
