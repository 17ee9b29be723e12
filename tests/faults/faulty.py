"""Makes a process fail at a chosen place: at a call of a function, counted from a call of another."""

import functools
import os
import resource
import signal
from importlib import import_module
from pathlib import Path


def arm(calls, act, *, after=False):
    """Let the process fail.

    Args:
        calls: Pairs of a function, as `module:name` where it is looked up, and which of its calls is meant. The calls
            of each are counted from the chosen call of the one before it; at the last it fails.
        act: `SIGKILL`, `SIGTERM` or `SIGINT`, which the process sends itself; `half` writes half of what
            `Path.write_bytes` was given and is then killed; `full` lets no file grow from here on, and `memory` nothing
            be allocated.
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
            if last and not after:
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
    elif act == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    elif act == "memory":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held, resource.RLIM_INFINITY))
    else:
        os.kill(os.getpid(), signal.Signals[act])
