"""Small words and draws that materials and biology share, next to the contract in `common`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from opcod.data.science.common import Mistake, Working, amount

T = TypeVar("T")


def by_level(rng: random.Random, level: int, *choices: Sequence[T]) -> T:
    """One of the choices meant for `level`; the first choices are those of level 1."""
    return rng.choice(choices[level - 1])


def reckon(working: str, value: float, unit: str) -> Working:
    """A calculation of more than one step, whose mistakes are all the family's own."""
    answer = amount(value, unit)
    return Working(answer, f"{working} = {answer}.", ())


def choose(reasons: dict[str, str], right: str) -> Working:
    """A choice among phrases.

    Args:
        reasons: For every option the reason that leads to it.
        right: The right option.
    """
    steps = {option: f"{reason}: {option}." for option, reason in reasons.items()}
    mistakes = (Mistake(option, step) for option, step in steps.items() if option != right)
    return Working(right, steps[right], tuple(mistakes))


def with_article(noun: str) -> str:
    """`an iron rod`, `a steel rod`."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """`text` with a capital first letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]
