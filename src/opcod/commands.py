"""What the `opcod` command runs: methods through LightningCLI, and what takes a run's arguments, such as diagnose."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from rich.console import Console

from opcod.callbacks import BreakRateTable, CleanStop, RoundCheckpoint, SizeCheck
from opcod.callbacks.checkpoints import check_writable, write_whole
from opcod.candidates import find_candidate, module_of, together
from opcod.checkpoint import load_checkpoint, read_checkpoint, whole_checkpoint
from opcod.codistillation import CoDistillation
from opcod.conversation import Conversation, converse
from opcod.data.datamodule import QuestionData
from opcod.finetuning import FineTuning
from opcod.grpo import Grpo
from opcod.masking import masked_settings
from opcod.models import BaseModel
from opcod.processes import AdapterStrategy
from opcod.report.evaluated import Evaluated, evaluation_json, evaluation_table, named
from opcod.rollout import Sampling
from opcod.specialists import shipped
from opcod.students import Students

RUNS = "runs"
"""Folder of all runs' logs and checkpoints."""

METHODS: tuple[type[Students], ...] = (CoDistillation, Grpo, FineTuning)
"""What students may learn by; the first is the one we are here for."""

DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
    "default_root_dir": RUNS,
}
CALLBACKS = (
    "SizeCheck",
    "QuestionCheck",
    "RoundCheckpoint",
    "CleanStop",
    "SampleTable",
    "RoundProgress",
    "CollapseWatch",
    "OutcomeTable",
    "TutorWatch",
    "predictions.PredictionWriter",
)


def default_callbacks(*names: str) -> list[dict[str, Any]]:
    return [{"class_path": f"opcod.callbacks.{name}"} for name in names]


def warn_of_missing(trainer: Trainer) -> None:
    """Say which of the callbacks that look after a training run a list of one's own has left out."""
    looked_after = {
        SizeCheck: "it is not planned whether it fits",
        RoundCheckpoint: "no checkpoint holds the scores of its round",
        CleanStop: "Ctrl-C saves nothing",
    }
    missing = {kind.__name__: loss for kind, loss in looked_after.items() if not _has(trainer, kind)}
    if missing and trainer.is_global_zero:
        warnings.warn(
            f"trainer.callbacks leaves out {', '.join(missing)}, so {', '.join(missing.values())}: name them as well, "
            "or write `callbacks+` in its place, which adds to the default ones",
            stacklevel=2,
        )


def _has(trainer: Trainer, kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def csv_logger(name: str) -> dict[str, Any]:
    return {
        "class_path": "opcod.run_log.RunLog",
        "init_args": {"save_dir": RUNS, "name": name, "flush_logs_every_n_steps": 1},
    }


class SaveConfig(SaveConfigCallback):
    """Writes the config to the run's folder, without what `masked_settings` masks."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it, unless a run's own is there and this command trains nobody."""
        folder = trainer.log_dir
        there = folder is not None and (Path(folder) / self.config_filename).is_file()
        if stage != "fit" and trainer.strategy.broadcast(there):  # another process may look when it is written
            return
        self.config = masked_settings(self.config)
        super().setup(trainer, pl_module, stage)


class Command(LightningCLI):
    """LightningCLI with one seed for everything, and without a checkpoint's say in the settings."""

    model_seed = "model.seed"
    resumes: tuple[str | None, ...] = ()
    """Subcommands that go on from a checkpoint; None where the command has none."""
    takes_checkpoint = True
    """Without, `ckpt_path` is only accepted, as it stands in the config of a run."""

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, which data and model share, and how much is said."""
        parser.add_argument(
            "--seed_everything",
            type=NonNegativeInt,
            default=0,
            help="Seed of every draw: of the questions, the adapters and all that is sampled.",
        )
        parser.add_argument("--quiet", action="store_true", help="Say only what came out, and warnings.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hand the seed on."""
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", self.model_seed)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args`, whatever stands in `sys.argv`."""
        self.config = parser.parse_args(args)
        if self._chosen("quiet"):
            for name in ("lightning.pytorch", "lightning.fabric"):
                logging.getLogger(name).setLevel(logging.WARNING)

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        """Make the trainer, whose processes exchange little, and which shows no progress where it is to be quiet."""
        asked = self._get(self.config_init, "trainer")
        several = asked.strategy == "auto" and (asked.devices, asked.num_nodes) != (1, 1)
        if asked.strategy == "ddp" or several:
            settings["strategy"] = AdapterStrategy()
        trainer = super().instantiate_trainer(**settings)
        if self._chosen("quiet") and trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()
        if self.config.get("subcommand") in self.resumes:
            warn_of_missing(trainer)
        return trainer

    def _chosen(self, option: str) -> Any:
        """What the command, or the subcommand that was given, has for an option."""
        return self._given.get(option)

    @property
    def _given(self) -> Namespace:
        subcommand = self.config.get("subcommand")
        return self.config[subcommand] if subcommand else self.config

    def _parse_ckpt_path(self) -> None:
        """Look at a checkpoint before the models are loaded.

        Lightning reads hyper-parameters out of it here and lets them override the command line; nothing is read here.
        """
        if self.takes_checkpoint and (path := self._chosen("ckpt_path")):
            if self.config.get("subcommand") in self.resumes:
                self._given.ckpt_path = str(whole_checkpoint(Path(path)))
            else:
                load_checkpoint(Path(path))


class CoDistil(Command):
    """`opcod fit`, `validate`, `test` and `predict`.

    Args:
        arguments: What follows `opcod`.
        run: Without, there is no subcommand among the arguments: only build `model`, `datamodule` and `trainer`.
        saved: Write the config to the run's folder.
        **parser: Settings of the parser.
    """

    model_seed = "model.init_args.seed"
    resumes = ("fit",)

    def __init__(self, arguments: Sequence[str], *, run: bool = True, saved: bool = True, **parser: Any) -> None:
        usages = {name: {"usage": f"opcod {name} [-c CONFIG ...] [options]"} for name in self.subcommands()}
        super().__init__(
            Students,
            QuestionData,
            args=list(arguments),
            run=run,
            subclass_mode_model=True,
            save_config_callback=SaveConfig if saved else None,
            trainer_defaults={**DEFAULTS, "max_epochs": 2, "logger": csv_logger("")},
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "opcod", "exit_on_error": False, **(usages if run else {}), **parser},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, without the choices to unpickle a checkpoint and to keep predictions in memory."""
        not_chosen = {"weights_only", "return_predictions"}
        return {name: skipped | not_chosen for name, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Set the method, which a config may replace, and the callbacks, which it may extend too (`callbacks+`)."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults(
            {"model": {"class_path": METHODS[0].__name__}, "trainer.callbacks": default_callbacks(*CALLBACKS)}
        )
        if not self.takes_checkpoint:
            help = "Of a run's own config; not read here."
            parser.add_argument("--ckpt_path", type=str | None, default=None, help=help)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Take the questions of a file in place of the source's, where one is named.

        Raises:
            ArgumentError: If the model is given a seed of its own, which the parser would pass over.
        """
        if any(re.match(r"--model\.(init_args\.)?seed(=|$)", argument) for argument in args):
            raise argparse.ArgumentError(None, 'Linked "model.seed" must be given via "seed_everything".')
        super().parse_arguments(parser, with_questions(args))

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **settings: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **settings)
        if subcommand in ("test", "predict"):
            add_questions(parser)
        return parser

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        written = {"return_predictions": False} if subcommand == "predict" else {}
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True, **written}


class Diagnose(CoDistil):
    """The arguments of `opcod diagnose`: those of a run, and whose feedback to whom is measured."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            arguments,
            run=False,
            prog="opcod diagnose",
            usage="opcod diagnose [-c CONFIG ...] [--ckpt_path CHECKPOINT] [--tutors CHECKPOINT] [options]",
            description="Measure how often feedback breaks right responses, and rescues wrong ones.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the two checkpoints."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"trainer.callbacks": default_callbacks("CleanStop", "RoundProgress")})
        help = "Checkpoint of the students who answer; by default they are as the config starts them."
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=help)
        help = "Checkpoint of the students who give feedback; by default those who answer."
        parser.add_argument("--tutors", type=str | None, default=None, help=help)


def diagnose(arguments: Sequence[str]) -> None:
    """Measure how often feedback turns right responses wrong, and wrong ones right, on the validation questions."""
    command = Diagnose(arguments)
    if tutors := command.config.tutors:
        read_checkpoint(Path(tutors))  # before the models are loaded
    command.trainer.callbacks.append(BreakRateTable(tutors))  # type: ignore[attr-defined]
    command.trainer.validate(
        command.model, command.datamodule, ckpt_path=command.config.ckpt_path, weights_only=True, verbose=False
    )


def with_questions(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the source that `--questions` among them stands for."""
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    named.add_argument("--questions")
    file = named.parse_known_args(arguments)[0].questions
    if file is None:
        return list(arguments)
    source = ["--data.source=QuestionFile", f"--data.source.file={file}"]
    return [*arguments, *source, "--data.development=0"]  # none of them is held out


def add_questions(parser: LightningArgumentParser) -> None:
    """Add the file of questions that are asked in place of the data's."""
    help = "JSONL file of questions that are asked in place of the data's; for a prediction they need no answer."
    parser.add_argument("--questions", type=str | None, default=None, help=help)


class Evaluate(CoDistil):
    """The arguments of `opcod evaluate`: those of a run, for its questions and how they are asked, and who is asked."""

    takes_checkpoint = False

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            arguments,
            run=False,
            saved=False,
            prog="opcod evaluate",
            usage="opcod evaluate MODEL [MODEL ...] {-c CONFIG | --questions FILE} ... [--output FILE] [options]",
            description="Score any checkpoints, adapters or models on the test questions, side by side.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add who is scored, and where the figures go."""
        super().add_arguments_to_parser(parser)
        nobody = {"students": [{"name": "candidate", "domain": "any"}]}  # those who are named take its place
        parser.set_defaults({"model": {"class_path": METHODS[0].__name__, "init_args": nobody}})
        help = (
            "Who is scored: a checkpoint of `opcod fit`, with all its students; an adapter, a shipped specialist's "
            "name or a folder; or a model, a hub id or a folder."
        )
        parser.add_argument("models", type=str, nargs="+", help=help)
        add_questions(parser)
        help = "JSON file of all figures, and of every question's share of right responses."
        parser.add_argument("--output", type=str | None, default=None, help=help)

    def before_instantiate_classes(self) -> None:
        """A run's config may have been given for its questions; this is no run, but it has to fit as well.

        Raises:
            OSError: If the figures could not be written, which is better said now than in an hour.
        """
        if self.config.output is not None:
            check_writable(Path(self.config.output))
        self.config.trainer.logger = False
        given = self.config.trainer.callbacks or []
        kept = [c for c in (given if isinstance(given, list) else [given]) if c.class_path.endswith(".SizeCheck")]
        own = [Namespace(c) for c in default_callbacks("CleanStop", "RoundProgress")]
        self.config.trainer.callbacks = [*kept, *own]


def evaluate(arguments: Sequence[str]) -> None:
    """Score candidates on the test questions as a run's students are, print a table, and write it down."""
    command = Evaluate(arguments)
    data, trainer = command.datamodule, command.trainer
    found = [find_candidate(model, data.domains, command.model.base) for model in command.config.models]
    evaluated: list[Evaluated] = []
    like = command.model
    for candidate in found:
        module = module_of(
            candidate,
            evaluation_samples=like.evaluation_samples,
            evaluation=like.evaluation,
            prompt_limit=like.prompt_limit,
            seed=like.seed,
        )
        trainer.test(module, data, ckpt_path=candidate.checkpoint, weights_only=True, verbose=False)
        assert module.tested is not None
        table, answers = module.tested
        ids = (q.id for q in getattr(data.splits, data.scored))
        evaluated.append(Evaluated(candidate.source, table, named(answers, ids)))
    if not trainer.is_global_zero:
        return
    Console().print(evaluation_table(evaluated, data.scored, like.evaluation_samples))
    if command.config.output is not None:
        write_whole(Path(command.config.output), evaluation_json(evaluated, data.scored))
        print(f"All figures are in {command.config.output}.")


def _device(name: str) -> torch.device:
    """Where to.

    Raises:
        ValueError: If it is a GPU that is not there.
    """
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device, found = torch.device(best if name == "auto" else name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ValueError(f"there is no device {name}: torch finds {found} GPUs; `opcod doctor` says more")
    return device


def chat(arguments: Sequence[str]) -> None:
    """Parse the arguments of `opcod chat` and run it."""
    purpose = "Ask students questions in the terminal, and hear what their peer says to the answers."
    parser = ArgumentParser(prog="opcod chat", description=purpose, exit_on_error=False)
    help = "A checkpoint of `opcod fit`; or adapters or models, by name, folder or GGUF file."
    parser.add_argument("models", type=str, nargs="+", help=help)
    parser.add_argument("--student", type=str, default="all", help="Who is asked; the others still give feedback.")
    parser.add_argument("--no_feedback", action="store_true", help="Do not ask the peer.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="Of all that is sampled.")
    parser.add_argument("--device", type=str, default="auto", help="Where to: `auto`, `cpu`, `cuda`, `cuda:1`.")
    parser.add_class_arguments(BaseModel, "base", skip={"model"}, help="How base models are loaded")
    parser.add_class_arguments(Sampling, "sampling", help="How answers and feedback are sampled")
    parser.set_defaults({"sampling.temperature": 0.6, "sampling.top_p": 0.95, "sampling.max_new_tokens": 512})
    given = parser.parse_args(list(arguments))
    named = parser.instantiate_classes(given)
    candidate = together([find_candidate(model, shipped(), named.base) for model in given.models])
    module = module_of(candidate, evaluation=named.sampling, evaluation_samples=1, seed=given.seed)
    module.to(_device(given.device))
    conversation = Conversation(candidate, module, feedback=not given.no_feedback)
    conversation.choose(given.student)
    converse(conversation, Console(), interactive=sys.stdin.isatty())
