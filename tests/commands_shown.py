"""The `opcod` commands that configs and README show, so that tests can run what a reader would."""

import re
import shlex
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def in_config(path: Path) -> list[list[str]]:
    """The commands in a config's header, without `opcod` itself."""
    header = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.removeprefix("#").strip())
    return [shlex.split(line)[1:] for line in header if line.startswith("opcod ")]


def in_readme() -> list[list[str]]:
    """The commands in the README's shell blocks, without `opcod` itself."""
    return in_page(ROOT / "README.md")


def in_page(path: Path) -> list[list[str]]:
    """The commands in a page's shell blocks, without `opcod` itself."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [_alone(line) for line in lines if line.startswith("opcod ")]


def _alone(line: str) -> list[str]:
    """What follows `opcod`, up to where a comment, another command or a file begins."""
    return list(takewhile(lambda word: word not in ("&&", ">", "|"), shlex.split(line, comments=True)))[1:]


def files_in_page(path: Path) -> dict[str, str]:
    """The files that a page asks its reader to save: name -> text."""
    return dict(re.findall(r"```\w+ title=\"([^\"]+)\"\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))


def in_makefile() -> list[list[str]]:
    """The commands of the Makefile's targets, with `physics` for the value of a loop."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    values = {"$$home": "physics", "$(SPECIALISTS)": "src/opcod/specialists", "$(SIZE)": "small"}
    for variable, value in values.items():
        text = text.replace(variable, value)
    return [shlex.split(line) for line in re.findall(r"\$\(BIN\)/opcod ([^|;\n]+)", text)]
