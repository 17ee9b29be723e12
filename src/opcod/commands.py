"""What the `opcod` command runs: co-distillation through LightningCLI, specialise, and export."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from opcod.codistillation import CoDistillation
from opcod.data.datamodule import LessonData, QuestionData
from opcod.evaluation import Table
from opcod.export import write_adapter, write_folder
from opcod.models import BaseModel, ModelError, load_base
from opcod.peers import Lora, SharedBase, State
from opcod.specialist import STUDENT, Specialist

ARGUMENTS = {"exit_on_error": False, "description": None}
RUNS = "runs"
"""Folder of all runs' logs and checkpoints."""

DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
    "default_root_dir": RUNS,
}
CALLBACKS = [
    {"class_path": f"opcod.callbacks.{name}"}
    for name in ("RoundCheckpoint", "SampleTable", "RoundProgress", "OutcomeTable", "predictions.PredictionWriter")
]


def _logger(name: str) -> dict[str, Any]:
    return {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": RUNS, "name": name, "flush_logs_every_n_steps": 1},
    }


class Command(LightningCLI):
    """LightningCLI with one seed for everything, and without a checkpoint's say in the settings."""

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, which data and model share."""
        parser.add_argument(
            "--seed_everything",
            type=NonNegativeInt,
            default=0,
            help="Seed of every draw: of the questions, the adapters and all that is sampled.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hand the seed on."""
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args`, whatever stands in `sys.argv`."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Check a checkpoint before anything is loaded; its hyper-parameters never override the command line."""
        inside = self.config.get(self.config.get("subcommand", ""), self.config)
        if path := inside.get("ckpt_path"):
            read_checkpoint(Path(path))


class CoDistil(Command):
    """`opcod fit`, `validate`, `test` and `predict`.

    Args:
        arguments: What follows `opcod`.
        run: Without, there is no subcommand among the arguments: only build `model`, `datamodule` and `trainer`.
    """

    def __init__(self, arguments: Sequence[str], *, run: bool = True) -> None:
        usages = {name: {"usage": f"opcod {name} [-c CONFIG ...] [options]"} for name in self.subcommands()}
        super().__init__(
            CoDistillation,
            QuestionData,
            args=list(arguments),
            run=run,
            trainer_defaults={**DEFAULTS, "max_epochs": 2, "logger": _logger("")},
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "opcod", "exit_on_error": False, **(usages if run else {})},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, without the choice to unpickle a checkpoint."""
        return {name: {*skipped, "weights_only"} for name, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Set the callbacks, which a config may replace (`callbacks`) or extend (`callbacks+`)."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"trainer.callbacks": CALLBACKS})

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}


class Specialise(Command):
    """The arguments of `opcod specialise`."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            Specialist,
            LessonData,
            args=list(arguments),
            run=False,
            trainer_defaults={**DEFAULTS, "max_epochs": 3, "logger": _logger("specialise")},
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": "opcod specialise",
                "usage": "opcod specialise [-c CONFIG ...] --output FOLDER [options]",
                "description": "Fine-tune one student on worked solutions and write its adapter.",
                "exit_on_error": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write, and what to resume from."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--output", type=str, required=True, help="Folder to write the adapter to.")
        parser.add_argument(
            "--dtype",
            type=Literal["float32", "bfloat16"],
            default="float32",
            help="Numbers to store the adapter in.",
        )
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to resume from.")

    def before_instantiate_classes(self) -> None:
        """Look at the folder now rather than after an hour of training."""
        check_output(Path(self.config.output), marker="adapter_config.json")


def specialise(arguments: Sequence[str]) -> None:
    """Fine-tune one student on worked solutions and write its adapter with a model card."""
    command = Specialise(arguments)
    command.trainer.fit(command.model, command.datamodule, ckpt_path=command.config.ckpt_path, weights_only=True)
    if not command.trainer.state.finished:
        return
    model, output = command.model, Path(command.config.output)
    write_adapter(
        output,
        model.state(),
        model.lora,
        base=model.base.model,
        dtype=getattr(torch, command.config.dtype),
        card=model_card(
            output.name,
            command=f"opcod specialise {shlex.join(arguments)}",
            seed=command.config.seed_everything,
            model=model,
            data=command.datamodule,
            scores={k: float(v) for k, v in command.trainer.callback_metrics.items()},
            dtype=command.config.dtype,
        ),
    )
    print(f"The adapter is in {output}")


def model_card(
    name: str,
    *,
    command: str,
    seed: int,
    model: Specialist,
    data: LessonData,
    scores: dict[str, float],
    dtype: str,
) -> str:
    """A specialist's README: how it was made and how it scores.

    Args:
        name: Of the adapter.
        command: That made it.
        seed: Of everything.
        model: The specialist.
        data: What it was taught.
        scores: Figures as the specialist logs them; none where it was not validated.
        dtype: Numbers it is stored in.
    """
    rows = []
    for domain in data.source.domains:
        place = f"validation/{STUDENT}/{domain}"
        if f"{place}/avg" in scores:
            average, error, formatted = (scores[f"{place}/{figure}"] for figure in ("avg", "stderr", "format"))
            rows.append(f"| {domain} | {100 * average:.1f} | {100 * error:.1f} | {100 * formatted:.1f} |")
    table = (
        [
            f"avg@{model.samples} in per cent, sampled at temperature {model.evaluation.temperature} and top-p "
            f"{model.evaluation.top_p}, on {data.validation} validation questions a domain:",
            "",
            "| domain | score | standard error | in the format |",
            "|---|---|---|---|",
            *rows,
        ]
        if rows
        else ["Not scored."]
    )
    lines = [
        f"# {name}",
        "",
        f"A specialist in {data.home} for opcod: a LoRA adapter (rank {model.lora.rank}, alpha {model.lora.alpha:g}) of "
        f"{model.base.model}, trained on the 4-bit base" * (model.base.quantization == "nf4")
        + f"A specialist in {data.home} for opcod: a LoRA adapter (rank {model.lora.rank}, alpha {model.lora.alpha:g}) of "
        f"{model.base.model}" * (model.base.quantization != "nf4")
        + f", stored in {dtype}.",
    ]
    return "\n".join([*lines, "", *table]) + "\n"
