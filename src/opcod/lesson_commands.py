"""What `opcod solve` and `opcod specialise` run: worked solutions, and who learns from them, through LightningCLI."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.cli import LightningArgumentParser

from opcod.callbacks.solutions import SolutionWriter
from opcod.card import commit_of_checkout, model_card, title_of
from opcod.commands import DEFAULTS, Command, SaveConfig, csv_logger, default_callbacks
from opcod.data.lesson_data import LessonData
from opcod.export import check_output, write_adapter
from opcod.masking import masked
from opcod.specialist import Specialist


class Lessons(Command):
    """A command on one student: the arguments of `opcod solve` and `opcod specialise`.

    Args:
        arguments: What follows `opcod`.
    """

    name: str
    purpose: str
    """In a sentence."""
    usage = "[-c CONFIG ...] --output PATH [options]"
    writes = True
    """Whether it must be told where to."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            Specialist,
            LessonData,
            args=list(arguments),
            run=False,
            trainer_defaults={**DEFAULTS, "max_epochs": 3, "logger": csv_logger(self.name)},
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": f"opcod {self.name}",
                "usage": f"opcod {self.name} {self.usage}",
                "description": self.purpose,
                "exit_on_error": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def _add_output(self, parser: LightningArgumentParser, help: str) -> None:
        parser.add_argument("--output", type=str if self.writes else str | None, required=self.writes, help=help)


class Solve(Lessons):
    """The arguments of `opcod solve`: those of `opcod specialise`, and where the solutions go."""

    name = "solve"
    purpose = "Write worked solutions for a specialist to learn from."

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"trainer.callbacks": default_callbacks("SizeCheck", "CleanStop", "RoundProgress")})
        help = "JSONL file of the solved questions, for `--data.solutions`; what it holds is not solved again."
        self._add_output(parser, help)
        parser.link_arguments("output", "data.solutions")


def solve(arguments: Sequence[str]) -> None:
    """Find worked solutions to the training questions and write them to a file."""
    command = Solve(arguments)
    command.trainer.callbacks.append(SolutionWriter(Path(command.config.output)))  # type: ignore[attr-defined]
    command.trainer.predict(command.model, command.datamodule, return_predictions=False)


class Specialise(Lessons):
    """The arguments of `opcod specialise`."""

    resumes: tuple[str | None, ...] = (None,)
    name = "specialise"
    purpose = "Fine-tune one student on worked solutions and write its adapter."

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write, and what to resume from."""
        super().add_arguments_to_parser(parser)
        stop = {"class_path": "opcod.callbacks.CleanStop", "init_args": {"command": "opcod specialise"}}
        callbacks = [*default_callbacks("SizeCheck", "QuestionCheck", "RoundCheckpoint", "RoundProgress"), stop]
        parser.set_defaults({"trainer.callbacks": callbacks})
        self._add_output(parser, "Folder to write the adapter to.")
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
    commit = commit_of_checkout()
    command = Specialise(arguments)
    model, data, trainer, config = command.model, command.datamodule, command.trainer, command.config
    trainer.fit(model, data, ckpt_path=config.ckpt_path, weights_only=True)
    if not trainer.is_global_zero:
        return
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    command_line = masked(f"opcod specialise {shlex.join(arguments)}")
    card = model_card(model, data, scores, command=command_line, commit=commit, dtype=config.dtype)
    output, dtype = Path(config.output), getattr(torch, config.dtype)
    write_adapter(output, model.state(), model.lora, base=model.base.model, dtype=dtype, card=card)
    print(f"The adapter of {title_of(data)} is in {output}.")
