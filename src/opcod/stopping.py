"""Where a run can be given up: between two tokens, two responses that are graded, two micro-batches.

Nothing that lasts is half changed there, so the run can be left, and the state in which its last step left it saved.
A signal's handler asks for it; what takes long looks up.
"""

from __future__ import annotations


class Interrupted(SystemExit):
    """The program was stopped, and ends with the status that shells give to the signal: 130 for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class GivenUp(Interrupted):
    """It was stopped where it had looked up."""


_asked: int | None = None


def ask_to_give_up(number: int | None) -> None:
    """From now on `look_up` raises; with None it does no longer.

    Args:
        number: The signal.
    """
    global _asked
    _asked = number


def look_up() -> None:
    """Go on, or give up where that was asked for.

    Raises:
        GivenUp: If it was.
    """
    if _asked is not None:
        raise GivenUp(_asked)
