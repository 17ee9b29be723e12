"""Makes a process fail at a chosen place: at a call of a function, counted from a call of another."""

import functools
import os
import signal
from importlib import import_module
from pathlib import Path

import torch


def arm(calls, act, *, after=False):
    """Let the process fail.

    Args:
        calls: Pairs of a function, as `module:name` where it is looked up, and which of its calls is meant. The calls
            of each are counted from the chosen call of the one before it; at the last it fails.
        act: `SIGKILL`, `SIGTERM` or `SIGINT`, which the process sends itself; `half` writes half of what
            `Path.write_bytes` was given and is killed; `full:FOLDER` fills the disk that the folder is on; `torch` and
            `python` ask for more memory than there is, at this call and all that follow.
        after: At the end of that call rather than before it.
    """
    place = {"stage": 0, "count": 0}

    def wrap(stage, target, number):
        owner, name, function = find(target)

        @functools.wraps(function)
        def wrapped(*given, **named):
            met = False
            if place["stage"] == stage:
                place["count"] += 1
                if met := place["count"] == number:
                    place.update(stage=stage + 1, count=0)
            last = met and stage == len(calls) - 1
            if (last and not after) or (act in ("torch", "python") and place["stage"] == len(calls)):
                fail(act, *given)
            result = function(*given, **named)
            if last and after:
                fail(act, *given)
            return result

        setattr(owner, name, wrapped)

    for stage, (target, number) in enumerate(calls):
        wrap(stage, target, number)


def find(target):
    """The module or class, the name and the function of `module:name` or `module:Class.name`."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    return owner, name, getattr(owner, name)


def fail(act, *given):
    """Fail so."""
    if act == "half":
        path, content = given
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    elif act.startswith("full:"):
        fill(Path(act.removeprefix("full:")))
    elif act == "torch":
        torch.empty(1 << 60, dtype=torch.uint8)
    elif act == "python":
        bytearray(1 << 62)
    else:
        os.kill(os.getpid(), signal.Signals[act])


def fill(folder):
    """Fill the disk that a folder is on, to the last byte, with a file `filler`."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
