"""The config reader: any bytes are a config, or are refused in words that are no traceback."""

import contextlib
import io
import tempfile
from functools import cache
from pathlib import Path

from jsonargparse import ArgumentParser

from opcod.cli import explain
from opcod.completion import parser_of

COMMANDS = {b"f": "fit", b"r": "reproduce", b"s": "specialise", b"e": "evaluate"}


@cache
def _parser(command: str) -> ArgumentParser:
    return parser_of(command)


def examine(data: bytes) -> None:
    """The first byte says which command reads the rest."""
    parser = _parser(COMMANDS.get(data[:1], "reproduce"))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = Path(folder, "config.yaml")
        path.write_bytes(data[1:])
        try:
            parser.parse_args(["-c", str(path)])
        except Exception as error:
            if explain(error) is None:
                raise
