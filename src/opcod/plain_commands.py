"""What commands run that train nobody themselves: check-data, reproduce, figures, report and export."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console

from opcod import comparison, grid
from opcod.checkpoint import read_checkpoint, roles_of
from opcod.export import check_output, write_adapter, write_folder
from opcod.models import BaseModel, load_base
from opcod.peers import Lora, SharedBase, State
from opcod.report.student_card import student_card


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
        role: The student itself, or its self-teacher, by default the average over its past.
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
