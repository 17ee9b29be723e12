"""What the `opcod` command runs: methods through LightningCLI, diagnose, reproduce, figures, specialise, export."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from rich.console import Console

from opcod import comparison, grid, plan
from opcod.callbacks import BreakRateTable
from opcod.callbacks.checkpoints import write_whole
from opcod.callbacks.solutions import SolutionWriter
from opcod.candidates import find_candidate, module_of, together
from opcod.card import commit_of_checkout, model_card, title_of
from opcod.checkpoint import load_checkpoint, read_checkpoint, roles_of, whole_checkpoint
from opcod.codistillation import CoDistillation
from opcod.conversation import Conversation, converse
from opcod.data.datamodule import LessonData, QuestionData
from opcod.devices import GPUS, this_cpu
from opcod.export import write_adapter, write_folder
from opcod.finetuning import FineTuning
from opcod.grpo import Grpo
from opcod.masking import masked, masked_settings
from opcod.models import BaseModel, ModelError, compute_dtype, load_base
from opcod.peers import Lora, SharedBase, State
from opcod.processes import AdapterStrategy
from opcod.report.evaluated import Evaluated, evaluation_json, evaluation_table, named
from opcod.report.planned import plan_lines, plan_tables
from opcod.report.student_card import student_card
from opcod.rollout import Sampling
from opcod.specialist import Specialist
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
    "RoundCheckpoint",
    "CleanStop",
    "SampleTable",
    "RoundProgress",
    "CollapseWatch",
    "OutcomeTable",
    "TutorWatch",
    "predictions.PredictionWriter",
)


def _callbacks(*names: str) -> list[dict[str, Any]]:
    return [{"class_path": f"opcod.callbacks.{name}"} for name in names]


def _logger(name: str) -> dict[str, Any]:
    return {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": RUNS, "name": name, "flush_logs_every_n_steps": 1},
    }


class SaveConfig(SaveConfigCallback):
    """Writes the config to the run's folder, without what `masked_settings` masks."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it."""
        self.config = masked_settings(self.config)
        super().setup(trainer, pl_module, stage)


class Command(LightningCLI):
    """LightningCLI with one seed for everything, and without a checkpoint's say in the settings."""

    model_seed = "model.seed"
    resumes: tuple[str | None, ...] = ()
    """Subcommands that go on from a checkpoint; None where the command has none."""

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
        if path := self._chosen("ckpt_path"):
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
            trainer_defaults={**DEFAULTS, "max_epochs": 2, "logger": _logger("")},
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "opcod", "exit_on_error": False, **(usages if run else {}), **parser},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, without the choice to unpickle a checkpoint."""
        return {name: {*skipped, "weights_only"} for name, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Set the method, which a config may replace, and the callbacks, which it may extend too (`callbacks+`)."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"model": {"class_path": METHODS[0].__name__}, "trainer.callbacks": _callbacks(*CALLBACKS)})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Take the questions of a file in place of the source's, where one is named."""
        super().parse_arguments(parser, with_questions(args))

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **settings: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **settings)
        if subcommand in ("test", "predict"):
            add_questions(parser)
        return parser

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}


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
        parser.set_defaults({"trainer.callbacks": _callbacks("CleanStop", "RoundProgress")})
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
    source = [] if file is None else ["--data.source=QuestionFile", f"--data.source.file={file}"]
    return [*arguments, *source]


def add_questions(parser: LightningArgumentParser) -> None:
    """Add the file of questions that are asked in place of the data's."""
    help = "JSONL file of questions that are asked in place of the data's; for a prediction they need no answer."
    parser.add_argument("--questions", type=str | None, default=None, help=help)


class Evaluate(CoDistil):
    """The arguments of `opcod evaluate`: those of a run, for its questions and how they are asked, and who is asked."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            arguments,
            run=False,
            saved=False,
            prog="opcod evaluate",
            usage="opcod evaluate MODEL [MODEL ...] -c CONFIG [-c CONFIG ...] [--output FILE] [options]",
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
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="Of a run's own config; not read here.")

    def before_instantiate_classes(self) -> None:
        """A run's config may have been given for its questions; this is no run."""
        self.config.trainer.logger = False
        self.config.trainer.callbacks = [Namespace(c) for c in _callbacks("CleanStop", "RoundProgress")]


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
    best = "cuda" if torch.cuda.is_available() else "cpu"
    module.to(torch.device(best if given.device == "auto" else given.device))
    conversation = Conversation(candidate, module, feedback=not given.no_feedback)
    conversation.choose(given.student)
    converse(conversation, Console(), interactive=sys.stdin.isatty())


class Planned(CoDistil):
    """The arguments of `opcod plan`: those of a run, the device, and what responses are expected to take."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            arguments,
            run=False,
            prog="opcod plan",
            usage="opcod plan [-c CONFIG ...] [--device NAME] [options]",
            description="Say what a run takes, before it is begun: memory, operations and time.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the device and the lengths."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"trainer.callbacks": []})
        help = f"The processor at hand (`cpu`), or a GPU by its data sheet ({', '.join(GPUS)})."
        parser.add_argument("--device", type=Literal["cpu", *GPUS], default="cpu", help=help)
        help = "Tokens that a response is expected to take; by default its limit."
        parser.add_argument("--response_tokens", type=PositiveInt | None, default=None, help=help)
        help = "Tokens that a feedback is expected to take; by default its limit."
        parser.add_argument("--feedback_tokens", type=PositiveInt | None, default=None, help=help)


def plan_run(arguments: Sequence[str]) -> None:
    """Print what a run takes."""
    command = Planned(arguments)
    config = command.config
    base = command.model.base
    planned = plan.plan(
        command.model,
        command.datamodule,
        rounds=command.trainer.max_epochs or 0,
        device=GPUS.get(config.device) or this_cpu(compute_dtype(base.dtype, "cpu")),
        response=config.response_tokens,
        feedback=config.feedback_tokens,
    )
    console = Console()
    for table in plan_tables(planned):
        console.print(table)
    for line in plan_lines(planned):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def check_data(arguments: Sequence[str]) -> None:
    """Print what is in files of questions; status 1 if a run would refuse them."""
    from opcod.chat import Chat
    from opcod.data.check import check
    from opcod.models import load_tokenizer
    from opcod.prompts import student_messages
    from opcod.report.checked import print_check

    purpose = "Explain what is in files of questions, and what is wrong with them. Status 1: a run would refuse them."
    parser = ArgumentParser(prog="opcod check-data", description=purpose, exit_on_error=False)
    help = "JSONL files: first what students are trained on, then what is held out from it."
    parser.add_argument("files", type=str, nargs="+", help=help)
    parser.add_class_arguments(BaseModel, skip={"quantization", "dtype", "packed", "attention"})
    help = "The domains that may occur; any by default."
    parser.add_argument("--domains", type=list[str] | None, default=None, help=help)
    help = "Longest student's prompt, in tokens."
    parser.add_argument("--prompt_limit", type=PositiveInt, default=2048, help=help)
    help = "Validation questions a domain, held out of the first file; 0 where one of the files is for it."
    parser.add_argument("--validation", type=NonNegativeInt, default=30, help=help)
    given = parser.parse_args(list(arguments))
    base = BaseModel(model=given.model, revision=given.revision, chat_template=given.chat_template)
    chat = Chat(load_tokenizer(base), ends=())
    report = check(
        given.files,
        prompt_tokens=lambda question: len(chat.prompt(student_messages(question))),
        special_tokens=chat.special_tokens,
        domains=given.domains,
        prompt_limit=given.prompt_limit,
        validation=given.validation,
    )
    print_check(report, Console())
    if not report.usable:
        raise SystemExit(1)


class Lessons(Command):
    """A command on one student: the arguments of `opcod solve` and `opcod specialise`.

    Args:
        arguments: What follows `opcod`.
        name: The command's.
        purpose: The command's, in a sentence.
    """

    def __init__(self, arguments: Sequence[str], name: str, purpose: str) -> None:
        super().__init__(
            Specialist,
            LessonData,
            args=list(arguments),
            run=False,
            trainer_defaults={**DEFAULTS, "max_epochs": 3, "logger": _logger(name)},
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": f"opcod {name}",
                "usage": f"opcod {name} [-c CONFIG ...] --output PATH [options]",
                "description": purpose,
                "exit_on_error": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )


class Solve(Lessons):
    """The arguments of `opcod solve`: those of `opcod specialise`, and where the solutions go."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments, "solve", "Write worked solutions for a specialist to learn from.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"trainer.callbacks": _callbacks("CleanStop", "RoundProgress")})
        help = "JSONL file of the solved questions, for `--data.solutions`; what it holds is not solved again."
        parser.add_argument("--output", type=str, required=True, help=help)
        parser.link_arguments("output", "data.solutions")


def solve(arguments: Sequence[str]) -> None:
    """Find worked solutions to the training questions and write them to a file."""
    command = Solve(arguments)
    command.trainer.callbacks.append(SolutionWriter(Path(command.config.output)))  # type: ignore[attr-defined]
    command.trainer.predict(command.model, command.datamodule, return_predictions=False)


class Specialise(Lessons):
    """The arguments of `opcod specialise`."""

    resumes = (None,)

    def __init__(self, arguments: Sequence[str]) -> None:
        purpose = "Fine-tune one student on worked solutions and write its adapter."
        super().__init__(arguments, "specialise", purpose)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write, and what to resume from."""
        super().add_arguments_to_parser(parser)
        stop = {"class_path": "opcod.callbacks.CleanStop", "init_args": {"command": "opcod specialise"}}
        parser.set_defaults({"trainer.callbacks": [*_callbacks("RoundCheckpoint", "RoundProgress"), stop]})
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


def reproduce(arguments: Sequence[str]) -> None:
    """Run a grid of methods, pairs and seeds, or go on with it."""
    wanted, output, dry = grid_of(arguments)
    grid.run(wanted, output, dry=dry)


def grid_of(arguments: Sequence[str]) -> tuple[grid.Grid, Path, bool]:
    """The arguments of `opcod reproduce`: a grid, its folder, and whether only to say what it takes."""
    purpose = "Run a grid of methods, pairs and seeds, or go on with it, and collect what came out as CSV files."
    parser = ArgumentParser(prog="opcod reproduce", description=purpose, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="Path to the grid's file.")
    parser.add_class_arguments(grid.Grid)
    parser.add_argument("--output", type=str, required=True, help="Folder of all its runs and of the CSV files.")
    parser.add_argument("--dry_run", action="store_true", help="Only say what is to be run, and how long it takes.")
    given = parser.parse_args(list(arguments)).as_dict()
    output, dry, _ = Path(given.pop("output")), given.pop("dry_run"), given.pop("config")
    return grid.Grid(**given), output, dry


def figures(arguments: Sequence[str]) -> None:
    """Draw a grid's figures and write its tables."""
    from opcod.report.figures import draw  # takes seconds

    purpose = "Make the figures (SVG and PNG) and the tables (Markdown) of a grid's CSV files."
    parser = ArgumentParser(prog="opcod figures", description=purpose, exit_on_error=False)
    parser.add_argument("--runs", type=str, required=True, help="The grid's folder, with its CSV files.")
    parser.add_argument("--output", type=str, default=None, help="Folder of the pictures; by default the grid's.")
    given = parser.parse_args(list(arguments))
    runs, output = Path(given.runs), Path(given.output or given.runs)
    for path in (*draw(runs, output), comparison.write_tables(runs, output)):
        print(path)


def report(arguments: Sequence[str]) -> None:
    """Write the page of one run or of several."""
    from opcod.report.page import NAME, write_report  # takes seconds

    purpose = "Write one page, which needs nothing else, about a run, or about several beside each other."
    parser = ArgumentParser(prog="opcod report", description=purpose, exit_on_error=False)
    parser.add_argument("runs", type=str, nargs="+", help="The runs' folders, such as runs/version_0.")
    help = f"The page; by default {NAME} in the first run's folder."
    parser.add_argument("--output", type=str, default=None, help=help)
    given = parser.parse_args(list(arguments))
    print(write_report([Path(run) for run in given.runs], Path(given.output) if given.output else None))


def export_student(arguments: Sequence[str]) -> None:
    """Parse the arguments of `opcod export` and run it."""
    purpose = "Write a student of a checkpoint for plain transformers and peft."
    parser = ArgumentParser(prog="opcod export", description=purpose, exit_on_error=False)
    parser.add_function_arguments(export, skip={"merged"})
    merged = "Write the whole model with the adapter merged in, instead of the adapter alone."
    parser.add_argument("--merged", action="store_true", help=merged)
    export(**parser.parse_args(list(arguments)).as_dict())


def export(
    checkpoint: str,
    student: str,
    output: str,
    role: Literal["student", "teacher"] = "student",
    merged: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
    license: str | None = None,
) -> None:
    """Write a student of a checkpoint for plain transformers and peft, with a model card.

    Args:
        checkpoint: File that `opcod fit` wrote.
        student: The student's name.
        output: Folder to write.
        role: The student itself, or its self-teacher, the average over its past.
        merged: Write the whole model with the adapter merged in, instead of the adapter alone. This loads the base
            model; where the student learned over 4-bit weights these are what it is merged into.
        dtype: Numbers to store.
        license: Identifier of the licence that the card names, such as `mit`; by default the base model's.

    Raises:
        ModelError: If it is no checkpoint of ours, holds no such student, or `output` is something else's folder.
    """
    kept = read_checkpoint(Path(checkpoint))
    roles = roles_of(kept, student, checkpoint)
    folder = Path(output)
    check_output(folder, marker="config.json" if merged else "adapter_config.json")
    state, lora, base = roles[role], Lora(**kept["lora"]), BaseModel(**kept["models"][student])
    card = student_card(kept, student, role, Path(checkpoint), merged=merged, license=license)
    if merged:
        write_folder(folder, lambda scratch: _write_merged(scratch, state, lora, base, getattr(torch, dtype), card))
    else:
        write_adapter(folder, state, lora, base=base.model, dtype=getattr(torch, dtype), card=card)
    print(f"{student} ({role}) is in {folder}.")


def _write_merged(folder: Path, state: State, lora: Lora, base: BaseModel, dtype: torch.dtype, card: str) -> None:
    shared = SharedBase(load_base(dataclasses.replace(base, packed="no", dtype="float32")), lora)
    shared.add_adapter("merged", seed=0)
    shared.load_state("merged", state)
    model = shared.peft.merge_and_unload(adapter_names=["merged"])
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config  # the weights are plain numbers by now
    model.to(dtype).save_pretrained(folder)
    shared.loaded.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def check_output(folder: Path, *, marker: str) -> None:
    """Refuse to replace a folder that we did not write.

    Args:
        folder: To be written; an older one is replaced as a whole.
        marker: The file by which a folder of this kind is known.

    Raises:
        ModelError: If there is something else.
    """
    if not folder.exists():
        return
    ours = folder.is_dir() and (folder / marker).is_file() and all(p.is_file() for p in folder.iterdir())
    if not (ours or (folder.is_dir() and not any(folder.iterdir()))):
        raise ModelError(f"{folder} exists and holds something else than an earlier {marker}: choose another folder")
