"""The config reader: any bytes are a config, or are refused in words that are no traceback."""

import contextlib
import io
import tempfile
from pathlib import Path

from opcod.cli import explain
from opcod.completion import parser_of

COMMANDS = {b"f": "fit", b"r": "reproduce", b"s": "specialise", b"e": "evaluate"}


PARSERS = {first: parser_of(command) for first, command in COMMANDS.items()}  # made now, as it takes its time


def examine(data: bytes) -> None:
    """The first byte says which command reads the rest."""
    parser = PARSERS.get(data[:1], PARSERS[b"r"])
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = Path(folder, "config.yaml")
        path.write_bytes(data[1:])
        try:
            parser.parse_args(["-c", str(path)])
        except Exception as error:
            if explain(error) is None:
                raise
