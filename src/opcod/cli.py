"""The `opcod` command: picks what runs, and says a user's mistake in one message without a traceback.

Imports nothing heavy, so that `opcod --help` is quick; the commands themselves stand in `opcod.commands`,
`opcod.lesson_commands`, `opcod.plan_commands` and `opcod.plain_commands`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType

from opcod import __version__, quiet
from opcod.masking import masked, print_traceback
from opcod.memory import keep_freed_memory

COMMANDS = {
    "fit": "co-distil two students, or train one by itself (SDPO)",
    "validate": "score the students on the questions the gate reads",
    "test": "score the students on the test questions",
    "predict": "write the students' answers to the test questions to predictions.jsonl",
    "evaluate": "score any checkpoints, adapters or models on the test questions, side by side",
    "check-data": "explain what is in files of questions, and what is wrong with them",
    "chat": "ask students questions, and hear what their peer says to the answers",
    "plan": "say what a run, `solve` or `specialise` takes, before it is begun: memory, operations and time",
    "diagnose": "measure how often feedback breaks right responses, and rescues wrong ones",
    "reproduce": "run a grid of methods, pairs and seeds, or go on with it",
    "figures": "make a grid's figures and tables from its CSV files",
    "report": "write a page that tells what a run came to, and what was said in it; or several beside each other",
    "solve": "write worked solutions for a specialist to learn from, a model's own where they are right",
    "specialise": "fine-tune one student on worked solutions and write its adapter",
    "export": "write a student of a checkpoint as an adapter or as merged weights",
    "init": "write the shipped configs to a folder, to begin from",
    "doctor": "say what this machine has for a run, what is missing, and the command that mends it",
    "completion": "print what a shell needs to complete these commands and their options",
}
PLANNED = ("fit", "solve", "specialise")
"""The commands that `opcod plan` may be told to plan; the first is what it plans untold."""
LIGHT = {"init": "opcod.starting", "doctor": "opcod.doctor", "completion": "opcod.completion"}
"""Modules of the commands that import for themselves what they need, in a `main` of their own."""

JUDGES = ("opcod.", "lightning.pytorch.trainer.", "lightning.pytorch.callbacks.")
"""Modules whose ValueErrors and RuntimeErrors are about what they were given."""

TOLD = "rank 0 says it"
"""Note on an error of one of several processes, for it not to be said twice."""

FAILURE, USAGE_ERROR, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: What follows `opcod`; by default what the process was given.

    Raises:
        SystemExit: With status 1 after a mistake of the user's, 2 after one in the command line itself, 130 after
            Ctrl-C, and 143 after SIGTERM.
    """
    _take_any_text()
    given = list(sys.argv[1:] if arguments is None else arguments)
    with_traceback = "--traceback" in given or os.environ.get("OPCOD_TRACEBACK") == "1"
    given = [argument for argument in given if argument != "--traceback"]
    command: str = _parser().parse_args(given[:1]).command
    quiet.install()
    sys.excepthook = print_traceback
    try:
        dispatch(command, given)
    except KeyboardInterrupt:
        print("opcod: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        message = None if with_traceback else explain(error)
        if message is None:
            raise
        if TOLD in getattr(error, "__notes__", ()):
            raise SystemExit(FAILURE) from None
        usage = isinstance(error, argparse.ArgumentError)
        hint = f"\n`opcod {command} --help` lists all options." if usage else ""
        print(f"opcod: error: {masked(message)}{hint}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR if usage else FAILURE) from None


def _take_any_text() -> None:
    """Write a character that the output's encoding does not have as an escape, and read any bytes."""
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):  # some of the input was read before
                stream.reconfigure(errors=errors)


def explain(error: Exception) -> str | None:
    """A user's mistake in words; None if it is the program's own, which wants its traceback.

    What opcod itself raises as a ValueError or RuntimeError is about what it was given. So is what the system says
    about files, and what Lightning and the command line's parser say about settings.
    """
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from opcod.halving import is_out_of_memory

    if is_out_of_memory(error):
        said = next(iter(str(error).splitlines()), type(error).__name__)
        return (
            "the memory is full: lower `matching.micro_batch_tokens` and `rollout.batch_size`, set "
            f"`checkpoint_activations` to true, or on a GPU `base.packed` to yes ({said})"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'no file named'}): free space, or write to another folder"
    if isinstance(error, argparse.ArgumentError):
        return _wrong_argument(error)
    own = _within_the_parser(error)
    given = (MisconfigurationException, OSError, ModuleNotFoundError)
    if isinstance(own, given) or (
        isinstance(own, ValueError | RuntimeError) and _module_of(own.__traceback__).startswith(JUDGES)
    ):
        return str(own).strip() or type(own).__name__
    if isinstance(error, ValueError | RecursionError) and _while_reading_settings(error.__traceback__):
        return f"the settings cannot be read: {error}"
    return None


def _wrong_argument(error: argparse.ArgumentError) -> str:
    """What the parser found, where it looked deepest: it wraps a nested argument's error in those of its parents."""
    found = [str(e).strip() for e in _chain(error) if isinstance(e, argparse.ArgumentError)]
    keyed = [re.fullmatch(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL) for message in found]
    keys = dict.fromkeys(match[1] for match in keyed if match)
    reason = keyed[-1][2] if keyed[-1] else found[-1]
    return f"{'.'.join(keys)}: {reason}" if keys else reason


def _within_the_parser(error: BaseException) -> BaseException:
    """What a class said that the parser was building, whose error the parser raises again as one of its own."""
    return next((e for e in _chain(error) if not _module_of(e.__traceback__).startswith("jsonargparse.")), error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _module_of(trace: TracebackType | None) -> str:
    """The module that raised."""
    return next(reversed([*_modules(trace)]), "")


def _while_reading_settings(trace: TracebackType | None) -> bool:
    """Whether the parser raised, or what it decodes files by."""
    return next((m for m in reversed([*_modules(trace)]) if m != "codecs"), "").startswith("jsonargparse.")


def _modules(trace: TracebackType | None) -> Iterator[str]:
    """The modules that a traceback goes through, the one that raised last."""
    while trace is not None:
        yield trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next


def _parser() -> argparse.ArgumentParser:
    """Of the first argument alone; each command reads its own."""
    parser = argparse.ArgumentParser(
        prog="opcod",
        description="Two language models teach each other until both are better in both domains (arXiv 2606.14368).",
        epilog="`opcod COMMAND --help` lists a command's options. --traceback, or OPCOD_TRACEBACK=1, shows where an "
        "error came from. Exit status: 0 done, 1 failed, 2 wrong command line, 130 interrupted, 143 terminated.",
    )
    parser.add_argument("--version", action="version", version=f"opcod {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    return parser


def dispatch(command: str, given: list[str]) -> None:
    """Run a command; `given` begins with its name."""
    if command in LIGHT:
        importlib.import_module(LIGHT[command]).main(given[1:])
        return
    from opcod import (
        commands,
        lesson_commands,
        plain_commands,
        plan_commands,
    )  # takes seconds: torch, transformers and peft
    from opcod.settings import guard_configs

    guard_configs()
    quiet.plain_warnings()
    keep_freed_memory()
    own = {
        "evaluate": commands.evaluate,
        "chat": commands.chat,
        "check-data": plain_commands.check_data,
        "plan": plan_commands.plan_command,
        "diagnose": commands.diagnose,
        "reproduce": plain_commands.reproduce,
        "figures": plain_commands.figures,
        "report": plain_commands.report,
        "solve": lesson_commands.solve,
        "specialise": lesson_commands.specialise,
        "export": plain_commands.export_student,
    }
    if command in own:
        own[command](given[1:])
    else:
        commands.CoDistil(given)


if __name__ == "__main__":
    main()
