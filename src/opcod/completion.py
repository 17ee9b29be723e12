"""`opcod completion`: a script by which a shell completes the commands and their options, without starting opcod."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jsonargparse import ArgumentParser, capture_parser

from opcod import __version__
from opcod.cli import COMMANDS, PLANNED, dispatch

PLACES = {
    "bash": "~/.local/share/bash-completion/completions/opcod",
    "zsh": "a folder of your fpath, as _opcod",
    "fish": "~/.config/fish/completions/opcod.fish",
}
"""Where each shell looks for such a script."""


def main(arguments: Sequence[str]) -> None:
    """Print the script.

    Args:
        arguments: What follows `opcod completion`.
    """
    places = ", ".join(f"{shell}: {place}" for shell, place in PLACES.items())
    purpose = f"Print what a shell needs to complete opcod's commands and options. It goes to ({places})."
    parser = ArgumentParser(prog="opcod completion", description=purpose, exit_on_error=False)
    parser.add_argument("shell", choices=list(PLACES), help="The shell.")
    print(script(parser.parse_args(list(arguments)).shell))


def script(shell: str) -> str:
    """The completion script of a shell, `bash`, `zsh` or `fish`."""
    root = ArgumentParser(prog="opcod", version=__version__)
    commands = root.add_subcommands()
    for name, purpose in COMMANDS.items():
        parser = options_of(name)
        parser.description = purpose  # zsh and fish show it
        if name == "plan":
            parser.add_argument("planned", choices=list(PLANNED), nargs="?")  # which it looks at before it parses
        commands.add_subcommand(name, parser)
    return root.get_completion_script(f"shtab-{shell}")


def parser_of(command: str) -> ArgumentParser:
    """A command's own parser, which it is stopped at; also that of `plan solve` or `plan specialise`."""
    if command == "doctor":  # parses without jsonargparse, which it may find to be missing, and has no options
        return ArgumentParser()
    words = command.split()
    parser = capture_parser(dispatch, words[0], words)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices[command]
    return parser


def options_of(command: str) -> ArgumentParser:
    """A command's own parser with no more than what can be typed."""
    parser = parser_of(command)
    for action in list(parser._actions):
        if any(" --> " in option for option in action.option_strings):  # two options that jsonargparse links
            parser._actions.remove(action)
    return parser
