"""Whether two mathematical expressions are equal, by math-verify, in a process of its own that can be ended.

sympy evaluates what it reads, and of some short expressions (`9^{9^9}`, a sum without end) it is never done. A signal
handler cannot interrupt it everywhere, and works in the main thread only. So this file is run as a process as well,
which the system ends when one question took it too much time or memory; the next question starts another.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import Any

from opcod.data.typography import plain

MAX_CHARACTERS = 1000
"""The most characters an expression may have."""
MAX_SECONDS = 2.0
"""The most processor time that reading or comparing may take."""
MAX_MEMORY = 2 << 30
"""The most memory, in bytes."""
_TRIES = 3  # of a process that is killed from outside
INSTALL = "pip install 'opcod[math]'"

_NAMES = "arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc log ln exp sqrt pi theta alpha beta gamma omega"
_BARE_NAME = re.compile(rf"(?<![\\A-Za-z])({'|'.join(_NAMES.split())})(?![A-Za-z])")
_SIGNS = (("**", "^"), ("·", "\\cdot "), ("⋅", "\\cdot "), ("×", "\\times "), ("*", "\\cdot "))
_POWER = re.compile(r"\^(-?[0-9]+)")
_ARGUMENT = re.compile(r"(?:\^|\\sqrt)\s*(?=\()")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z0-9\\])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([+-]?[0-9]+)(?![A-Za-z0-9.])")
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))


def read_expression(text: str) -> str | None:
    """What `text`, one expression in LaTeX or in plain spelling, reads as; None if it cannot be read.

    Two spellings that are read as the same have the same value here, though not all that are equal do.
    """
    latex = _latex(text)
    return None if latex is None else _ask("read", latex)


def same_expression(key: str, answer: str) -> bool:
    """Whether an answer is right by math-verify; False as well where that cannot be decided within the limits.

    Args:
        key: The right expression. What may be left out of an answer goes by it: the `y =` of a key `y = 2x` may.
        answer: The one to be judged.
    """
    one, other = _latex(key), _latex(answer)
    return one is not None and other is not None and _ask("same", one, other) is not None


def _latex(text: str) -> str | None:
    """A single expression in LaTeX without its delimiters, from LaTeX or plain spelling (`sqrt(x)/2`, `x**2`)."""
    text = plain(text).rstrip(".")
    for begin, end in _DELIMITERS:
        if text.startswith(begin) and text.endswith(end) and len(text) > len(begin + end):
            text = text[len(begin) : -len(end)].strip()
            break
    if not 0 < len(text) <= MAX_CHARACTERS or "$" in text:
        return None
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    for sign, latex in _SIGNS:
        text = text.replace(sign, latex)
    return _braced(_POWER.sub(r"^{\1}", _BARE_NAME.sub(r"\\\1", text).replace("π", "\\pi ")))


def _braced(text: str) -> str:
    """`text` with braces for the parentheses around an exponent and under a root, where those close."""
    signs = list(text)
    for match in _ARGUMENT.finditer(text):
        depth = 0
        for place in range(match.end(), len(text)):
            depth += (text[place] == "(") - (text[place] == ")")
            if depth == 0:
                signs[match.end()], signs[place] = "{", "}"
                break
    return "".join(signs)


@lru_cache(maxsize=1 << 14)
def _ask(*question: str) -> str | None:
    """What the process replies; None as well if it was ended over the question."""
    return _PROCESS.ask(question)


class _Process:
    """This file as a process, started when it is needed first, and again after its end."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.running: subprocess.Popen[str] | None = None

    def ask(self, question: tuple[str, ...]) -> str | None:
        with self.lock:
            for _ in range(_TRIES):
                line = self._exchange(json.dumps(question) + "\n")
                if line.endswith("\n"):
                    reply: str | None = json.loads(line)
                    return reply
                if self._ended() != -signal.SIGKILL:  # it took too much, or broke down over the question
                    return None
        raise RuntimeError(
            f"the process that grades expressions was killed {_TRIES} times over one answer, by the system or by hand: "
            "see that there is memory for it, and go on from the last checkpoint"
        )

    def _exchange(self, question: str) -> str:
        """The line that the process replies; not a whole one if it ended."""
        if self.running is None or self.running.poll() is not None:
            self.running = self._start()
        assert self.running.stdin is not None
        assert self.running.stdout is not None
        try:
            self.running.stdin.write(question)
            self.running.stdin.flush()
        except BrokenPipeError:
            return ""
        return self.running.stdout.readline()

    def _ended(self) -> int:
        """The status of the process, which has ended."""
        assert self.running is not None
        with suppress(BrokenPipeError):
            self.running.communicate()
        status = self.running.wait()
        self.running = None
        return status

    def _start(self) -> subprocess.Popen[str]:
        if importlib.util.find_spec("math_verify") is None:
            raise ModuleNotFoundError(f"questions of type expression are graded by math-verify: {INSTALL}")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        assert process.stdout is not None
        fault = process.stdout.readline().strip()
        if fault != "ready":
            process.communicate()
            raise ModuleNotFoundError(f"math-verify does not start ({fault or 'it ended'}); try {INSTALL}")
        return process


_PROCESS = _Process()


def _serve() -> None:
    """Reply to each line that comes in by a line, until there are no more."""
    import resource

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever asks ends it
    try:
        import math_verify  # noqa: F401  # takes a second
    except ImportError as error:
        print(" ".join(str(error).split()), flush=True)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, hard))
    print("ready", flush=True)
    for line in sys.stdin:
        kind, *texts = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)  # nobody handles its signal, so the system ends the process
        try:
            reply = _read(*texts) if kind == "read" else _same(*texts)
        except Exception:  # whatever sympy says to what it cannot read
            reply = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), flush=True)


def _read(latex: str) -> str:
    return str(_parsed(latex))


def _same(key: str, answer: str) -> str | None:
    from math_verify import verify

    return "same" if verify(_parsed(key), _parsed(answer), timeout_seconds=None) else None


@lru_cache(maxsize=1024)
def _parsed(latex: str) -> Any:
    """The expression as math-verify's own parser reads it, except that V and v are two symbols, and m is no unit."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify.parser import should_treat_as_complex

    normalization = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="all")
    return latex2sympy(
        latex,
        is_real=not should_treat_as_complex(latex),
        normalization_config=normalization,
        conversion_config=ConversionConfig(lowercase_symbols=False),
    )


if __name__ == "__main__":
    _serve()
