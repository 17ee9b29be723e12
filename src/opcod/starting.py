"""`opcod init`: the configs that opcod ships, in a folder of one's own."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

DEMO = ("base.yaml", "pair-materials-physics.yaml", "size-demo.yaml", "demo-families.yaml")
"""The configs of a first run, those of `make demo`."""


def main(arguments: Sequence[str]) -> None:
    """Write the configs and say what to do with them.

    Args:
        arguments: What follows `opcod init`.

    Raises:
        FileExistsError: If there are configs already.
    """
    purpose = (
        "Write the shipped configs, and the example questions, to DIR/configs. Every config begins with the commands "
        "that use it, which are run in DIR."
    )
    parser = ArgumentParser(prog="opcod init", description=purpose, exit_on_error=False)
    parser.add_argument("dir", metavar="DIR", type=str, help="The folder; it is made if it is not there.")
    folder = Path(parser.parse_args(list(arguments)).dir).expanduser()
    begin = " ".join(["opcod fit", *(f"-c configs/{name}" for name in DEMO)])
    written = write_configs(folder)
    goes_there = shlex.join(["cd", str(folder)])
    print(f"{len(list(written.glob('*.yaml')))} configs are in {written}. To begin:\n  {goes_there}\n  {begin}")


def shipped_configs() -> Path:
    """The folder of the configs: the package's own, or the checkout's which the package is made from."""
    packed = Path(__file__).parent / "configs"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "configs"


def write_configs(folder: Path) -> Path:
    """Copy the shipped configs to `configs` in a folder.

    Returns:
        Where they are.

    Raises:
        FileExistsError: If there is such a folder already, which may hold somebody's work.
    """
    target = folder / "configs"
    if target.exists():
        raise FileExistsError(f"{target} is there already and is left as it is: name another folder, or move it away")
    shutil.copytree(shipped_configs(), target)
    return target
